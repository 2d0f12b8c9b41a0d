package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-proxy/sluice/cmd/internal/config"
	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/discovery/consul"
	"github.com/sluice-proxy/sluice/discovery/file"
)

// adapter is one of the two ways to discover instances.
type adapter interface {
	Run(ctx context.Context, emit func(discovery.Snapshot)) error
	Waiting() map[discovery.Service]string
}

// source runs the adapter that the configuration names. When the services change
// a new one takes over, with what was known last; the old one goes on until the
// new one has read everything, so that one service that cannot be read does not
// keep the others from being seen.
type source struct {
	logger *slog.Logger
	token  func() string // Consul's
	emit   func(discovery.Snapshot)
	next   chan *config.Config // capacity 1: the newest configuration, a level

	mu      sync.Mutex
	now     adapter // the newest one
	emitted adapter // whose snapshot is last
	last    discovery.Snapshot
}

func newSource(logger *slog.Logger, token func() string, emit func(discovery.Snapshot)) *source {
	return &source{logger: logger, token: token, emit: emit, next: make(chan *config.Config, 1)}
}

// run discovers until ctx ends.
func (s *source) run(ctx context.Context, conf *config.Config) error {
	group, ctx := errgroup.WithContext(ctx)
	stopOld := func() {}
	for {
		a, err := s.newAdapter(conf)
		if err != nil {
			return fmt.Errorf("discovery: %w", err)
		}
		s.mu.Lock()
		s.now = a
		s.mu.Unlock()
		life, stop := context.WithCancel(ctx)
		defer stop()
		old := stopOld
		group.Go(func() error {
			err := a.Run(life, func(snapshot discovery.Snapshot) {
				old()
				s.keep(a, snapshot)
			})
			if life.Err() == nil {
				return fmt.Errorf("discovery: %w", err)
			}
			return nil
		})
		stopOld = func() { old(); stop() }
		select {
		case <-ctx.Done():
			return group.Wait()
		case conf = <-s.next:
		}
	}
}

// follow has the source go on with another configuration.
func (s *source) follow(conf *config.Config) {
	select {
	case <-s.next:
	default:
	}
	s.next <- conf
}

// keep hands a snapshot on, unless it comes from an adapter that was replaced by
// one which has read everything.
func (s *source) keep(a adapter, snapshot discovery.Snapshot) {
	s.mu.Lock()
	if s.emitted != nil && s.emitted != a && s.now != a {
		s.mu.Unlock()
		return
	}
	s.emitted, s.last = a, snapshot
	s.mu.Unlock()
	s.emit(snapshot)
}

// waiting says what has not been read yet, empty when everything has been.
func (s *source) waiting() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == nil {
		return "discovery has not started yet"
	}
	all := s.now.Waiting()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		return fmt.Sprintf("service %s has not been read from discovery yet: %s", name, all[name])
	}
	return ""
}

func (s *source) newAdapter(c *config.Config) (adapter, error) {
	s.mu.Lock()
	last := s.last
	s.mu.Unlock()
	if d := c.Discovery.Consul; d != nil {
		names := map[discovery.Service]string{}
		for _, x := range c.Services {
			names[x.Name] = x.ConsulService
		}
		return consul.New(consul.Options{
			Address: d.Address, TokenNow: s.token, Datacenter: d.Datacenter,
			BlueTag: d.Tags.Blue, GreenTag: d.Tags.Green,
			Services: names, Previous: last, Logger: s.logger,
		})
	}
	var names []discovery.Service
	for _, x := range c.Services {
		names = append(names, x.Name)
	}
	return file.New(file.Options{Path: c.Discovery.File, Services: names, Previous: last, Logger: s.logger})
}
