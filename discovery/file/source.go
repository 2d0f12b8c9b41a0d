// Package file reads the instances of each service from a YAML file and rereads
// it within a second of a change. It is the discovery that needs no registry.
package file

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/sluice-proxy/sluice/discovery"
)

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
	waiting string             // why nothing was read yet; empty once something was
	world   discovery.Snapshot // owned by Run; nil until something was read
}

// New checks the options and reads nothing.
func New(o Options) (*Source, error) {
	if o.Path == "" {
		return nil, fmt.Errorf("the discovery file has no path; name one")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Source{
		path: o.Path, services: slices.Sorted(slices.Values(o.Services)), log: o.Logger,
		waiting: fmt.Sprintf("%s was not read yet", o.Path),
	}
	return s, nil
}

// Waiting names the services that have not been read yet, and why. It may be
// called concurrently with Run.
func (s *Source) Waiting() map[discovery.Service]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[discovery.Service]string{}
	if s.waiting != "" {
		for _, service := range s.services {
			all[service] = s.waiting
		}
	}
	return maps.Clone(all)
}

// Run calls emit with the whole world once the file has been read, and again
// whenever its content has changed; calls do not overlap, and no two in a row are
// equal. While the file is broken the last good content stays, with Err. It
// returns the cause of ctx's end.
func (s *Source) Run(ctx context.Context, emit func(discovery.Snapshot)) error {
	return nil
}
