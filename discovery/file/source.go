// Package file reads the instances of each service from a YAML file and rereads
// it within a second of a change. It is the discovery that needs no registry.
package file

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
)

// poll is how often the file is looked at. A change is read one poll after it was
// seen, when whoever writes in place has mostly finished: half a second at most.
const poll = 250 * time.Millisecond

// Options say which file to read.
type Options struct {
	Path string
	// Services are those asked for. One that the file does not name has no
	// instances; what the file names beyond them is not used.
	Services []discovery.Service
	// Previous is the last known world. When it holds every service, it stands in
	// until the file can be read.
	Previous discovery.Snapshot
	// Logger gets one line for each change of what is left out or broken.
	Logger *slog.Logger
}

// Source watches one file. It is made for one Run.
type Source struct {
	path     string
	services []discovery.Service
	log      *slog.Logger

	mu      sync.Mutex
	waiting string // why nothing was read yet; empty once something was

	// Owned by Run.
	world   discovery.Snapshot // what is believed; nil before there is anything
	content [sha256.Size]byte  // of what was read last, good or broken
	wrong   string             // with it; empty when it is good
	unused  []discovery.Service
}

// New checks the options and reads nothing.
func New(o Options) (*Source, error) {
	if o.Path == "" {
		return nil, errors.New("the discovery file has no path; name one")
	}
	s := &Source{
		path: o.Path, services: slices.Sorted(slices.Values(o.Services)), log: o.Logger,
		waiting: fmt.Sprintf("%s was not read yet", o.Path), world: discovery.Snapshot{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	for _, service := range s.services {
		if f, ok := o.Previous[service]; ok && f.Unread == "" {
			s.world[service] = f
		}
	}
	if len(s.world) < len(s.services) || len(s.services) == 0 {
		s.world = nil
	} else {
		s.waiting = ""
	}
	return s, nil
}

// Waiting names the services that have not been read yet, and why. It may be
// called concurrently with Run.
func (s *Source) Waiting() map[discovery.Service]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[discovery.Service]string{}
	for _, service := range s.services {
		if s.waiting != "" {
			all[service] = s.waiting
		}
	}
	return all
}

// Run calls emit with the whole world once the file has been read, and again
// whenever its content has changed; no two calls in a row are equal. A file that
// is valid is believed at once; while it is broken, empty or gone the last good
// content stays, with Err. It returns the cause of ctx's end.
func (s *Source) Run(ctx context.Context, emit func(discovery.Snapshot)) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	var emitted discovery.Snapshot
	for {
		seen := look(s.path)
		s.read()
		if s.world != nil && (emitted == nil || !maps.EqualFunc(emitted, s.world, discovery.Fleet.Equal)) {
			emitted = maps.Clone(s.world)
			emit(emitted)
		}
		for changed := false; !changed; {
			if err := next(ctx, tick); err != nil {
				return err
			}
			changed = !same(seen, look(s.path))
		}
		if err := next(ctx, tick); err != nil {
			return err
		}
	}
}

func next(ctx context.Context, tick *time.Ticker) error {
	select {
	case <-tick.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// look tells one state of a file from another without reading it; nil is none.
func look(path string) fs.FileInfo {
	info, err := os.Stat(path)
	if err != nil {
		return nil
	}
	return info
}

func same(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == b
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// read takes what the file holds now.
func (s *Source) read() {
	data, err := os.ReadFile(s.path)
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = fmt.Errorf("%s: %w", s.path, path.Err)
	}
	if err != nil {
		s.content = [sha256.Size]byte{}
		s.broken(err)
		return
	}
	sum := sha256.Sum256(data)
	if sum == s.content {
		return
	}
	s.content = sum
	world, err := Parse(s.path, data)
	if err != nil {
		s.broken(err)
		return
	}
	s.good(world)
}

// good believes the file's content at once: it was edited on purpose.
func (s *Source) good(world map[discovery.Service]discovery.Fleet) {
	if s.wrong != "" {
		s.log.Info("the discovery file is read again")
	}
	s.wrong = ""
	next := discovery.Snapshot{}
	for _, service := range s.services {
		before, after := s.world[service], world[service]
		if before.Err = ""; after.Instances == nil {
			after = discovery.NewFleet(nil)
		}
		discovery.LogChange(s.log, service, before, after)
		next[service] = after
		delete(world, service)
	}
	s.world = next
	s.wait("")
	if unused := slices.Sorted(maps.Keys(world)); !slices.Equal(unused, s.unused) {
		s.log.Warn("services of the discovery file are not in the configuration", "unused", unused)
		s.unused = unused
	}
}

// broken keeps the last good content and says what is wrong with the newest.
func (s *Source) broken(err error) {
	if why := err.Error(); s.wrong != why {
		s.log.Warn("the discovery file cannot be read", "reason", why)
		s.wrong = why
	}
	if s.world == nil {
		s.wait(s.wrong)
		return
	}
	next := discovery.Snapshot{}
	for service, f := range s.world {
		f.Err = s.wrong + "; the last good content is kept"
		next[service] = f
	}
	s.world = next
}

func (s *Source) wait(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = why
}
