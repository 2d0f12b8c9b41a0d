package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

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

// source runs the adapter that the configuration names, and another one in its
// place when the services change; what was known last goes along.
type source struct {
	logger *slog.Logger
	emit   func(discovery.Snapshot)

	mu      sync.Mutex
	now     adapter
	next    *config.Config
	replace context.CancelFunc
	last    discovery.Snapshot
}

// run discovers until ctx ends.
func (s *source) run(ctx context.Context, conf *config.Config) error {
	for {
		life, cancel := context.WithCancel(ctx)
		a, err := s.adapter(conf)
		if err != nil {
			cancel()
			return fmt.Errorf("discovery: %w", err)
		}
		s.mu.Lock()
		s.now, s.replace = a, cancel
		if s.next != nil {
			cancel() // a newer configuration came meanwhile
		}
		s.mu.Unlock()
		err = a.Run(life, s.keep)
		replaced := life.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if !replaced {
			return fmt.Errorf("discovery: %w", err)
		}
		s.mu.Lock()
		conf, s.next = s.next, nil
		s.mu.Unlock()
	}
}

// follow has the source go on with another configuration.
func (s *source) follow(conf *config.Config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = conf
	if s.replace != nil {
		s.replace()
	}
}

func (s *source) keep(snapshot discovery.Snapshot) {
	s.mu.Lock()
	s.last = snapshot
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

func (s *source) adapter(c *config.Config) (adapter, error) {
	s.mu.Lock()
	last := s.last
	s.mu.Unlock()
	if d := c.Discovery.Consul; d != nil {
		names := map[discovery.Service]string{}
		for _, x := range c.Services {
			names[x.Name] = x.ConsulService
		}
		return consul.New(consul.Options{
			Address: d.Address, Token: d.Token, Datacenter: d.Datacenter,
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
