// Package consul reads the instances of each service from Consul, with one
// blocking query per service.
package consul

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/discovery/consul/rules"
)

// Options say which Consul to read and what to read there.
type Options struct {
	// Address is "host:port", "http(s)://host:port" or "unix:///path". What is
	// left empty here, and all of TLS, is taken from Consul's own environment
	// variables (CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN, CONSUL_CACERT, …).
	Address, Token, Datacenter string
	// TokenNow, if set, is asked for the token of each query, in place of Token: it
	// may be replaced. Empty is Consul's own.
	TokenNow func() string
	// BlueTag and GreenTag mark the colours. Default "blue" and "green".
	BlueTag, GreenTag string
	// Services maps each service to its name in Consul; empty means the same.
	Services map[discovery.Service]string
	// Previous is the last known world. Its services count as read already, so
	// that a new Source goes on where the one before it ended.
	Previous discovery.Snapshot
	// Hold is how long a suspect absence lasts before it can be believed.
	// Default discovery.DefaultHold.
	Hold time.Duration
	// Logger gets one line for each change of what is left out or in doubt.
	Logger *slog.Logger

	// dial replaces the network in tests.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Source watches Consul. It is made for one Run.
type Source struct {
	watches []*watch
	log     *slog.Logger
	closing func()

	mu      sync.Mutex
	waiting map[discovery.Service]string
	world   discovery.Snapshot // owned by Run; what has been read so far
}

// New checks the options and connects to nothing.
func New(o Options) (*Source, error) {
	tags := tags{
		blue:  cmp.Or(o.BlueTag, string(discovery.Blue)),
		green: cmp.Or(o.GreenTag, string(discovery.Green)),
	}
	if tags.blue == tags.green {
		return nil, fmt.Errorf("both colours have the tag %q; give each its own", tags.blue)
	}
	if err := rules.CheckWatches(len(o.Services)); err != nil {
		return nil, err
	}
	if o.Hold == 0 {
		o.Hold = discovery.DefaultHold
	}
	if o.TokenNow == nil {
		o.TokenNow = func() string { return "" } // the client's
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := api.DefaultConfig()
	if o.Address != "" {
		c.Address = o.Address
	}
	if o.Token != "" {
		c.Token = o.Token
	}
	c.Datacenter = o.Datacenter
	c.Transport.MaxIdleConnsPerHost = rules.MaxWatches
	if o.dial != nil {
		c.Transport.DialContext = o.dial
	}
	client, err := api.NewClient(c)
	if err != nil {
		return nil, fmt.Errorf("set up the Consul client: %w", err)
	}
	s := &Source{
		log: o.Logger, closing: c.Transport.CloseIdleConnections,
		waiting: map[discovery.Service]string{}, world: discovery.Snapshot{},
	}
	for _, service := range slices.Sorted(maps.Keys(o.Services)) {
		name := o.Services[service]
		if name == "" {
			name = string(service)
		}
		if err := rules.CheckName(name); err != nil {
			return nil, fmt.Errorf("service %s: %w", service, err)
		}
		w := &watch{service: service, name: name, tags: tags, hold: o.Hold, health: client.Health(), token: o.TokenNow}
		if f, ok := o.Previous[service]; ok && f.Unread == "" {
			w.fleet, w.known = f, true
			s.world[service] = f
		} else {
			s.waiting[service] = "Consul was not asked yet"
		}
		s.watches = append(s.watches, w)
	}
	return s, nil
}

// Waiting names the services that have not been read yet, and why. It may be
// called concurrently with Run.
func (s *Source) Waiting() map[discovery.Service]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.waiting)
}

// firstRead is how long the services that can be read wait at the start for those
// that cannot.
const firstRead = 2 * time.Second

// Run calls emit with the whole world once every service has been read, and again
// whenever it has changed; calls do not overlap, and no two in a row are equal.
// While Consul cannot be read the last good world stays, with Err. A service that
// cannot be read (a token that may not see it) keeps the others waiting for
// firstRead and is then Unread among them; while none can be read nothing is
// emitted. It returns the cause of ctx's end.
func (s *Source) Run(ctx context.Context, emit func(discovery.Snapshot)) error {
	defer s.closing()
	ctx, cancel := context.WithCancel(ctx)
	var watches sync.WaitGroup
	defer watches.Wait()
	defer cancel()
	reports := make(chan report)
	for _, w := range s.watches {
		watches.Go(func() { w.run(ctx, reports) })
	}
	var emitted discovery.Snapshot
	begun := time.NewTimer(firstRead)
	defer begun.Stop()
	patient := true
	for {
		whole := len(s.world) == len(s.watches) || len(s.world) > 0 && !patient
		if next := s.snapshot(); whole && (emitted == nil || !maps.EqualFunc(emitted, next, discovery.Fleet.Equal)) {
			emitted = next
			emit(emitted)
		}
		select {
		case r := <-reports:
			s.take(r)
		case <-begun.C:
			patient = false
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// snapshot is every service, as it was read or Unread.
func (s *Source) snapshot() discovery.Snapshot {
	all := maps.Clone(s.world)
	for service, why := range s.Waiting() {
		all[service] = discovery.Fleet{Instances: []discovery.Instance{}, Unread: why}
	}
	return all
}

// take puts what a watch has to say into the world.
func (s *Source) take(r report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.fleet == nil {
		if s.waiting[r.service] != r.why {
			s.log.Warn("discovery cannot be read", "service", string(r.service), "reason", r.why)
		}
		s.waiting[r.service] = r.why
		return
	}
	delete(s.waiting, r.service)
	discovery.LogChange(s.log, r.service, s.world[r.service], *r.fleet)
	s.world[r.service] = *r.fleet
}
