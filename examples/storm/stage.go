package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// service is the one service of the experiment.
const service discovery.Service = "chat"

// setting is what a stage is raised with.
type setting struct {
	// blue and green are how many instances each colour has.
	blue, green int
	// capacity is what each instance declares; 0 is none.
	capacity int
	// policy is the service's, in YAML.
	policy string
	// withoutDrain: the instances know nothing of the drain contract.
	withoutDrain bool
	// handshake is how long green takes to let a client in; those of blue came long ago.
	handshake time.Duration
	// feed is how often every instance says a numbered message to all; 0 is never.
	feed time.Duration
	// notice above 0: instances ask their clients, which come over.
	notice time.Duration
}

// stage is a freshly started fleet: blue and green processes, rolloutd and two
// Envoys that share one address, between which the kernel spreads clients.
type stage struct {
	setting
	dir   string
	bin   fleet.Bin
	web   netip.AddrPort
	chats map[discovery.InstanceID]*fleet.Chat
	// started counts the chats of a colour, those that ended included.
	started map[discovery.Colour]int
	// others are all processes but the chats.
	others []*fleet.Process
	// registered is what discovery says, in the order of registration.
	registered []fleet.Instance
	ctl        *fleet.Rolloutd
	api        *api.Client
	guards     sync.WaitGroup

	mu     sync.Mutex
	ending map[*fleet.Process]bool // may end without harm
}

// raise starts everything in an emptied dir and waits until both Envoys serve.
// What was started is ended by strike, also after an error.
func (s *stage) raise(ctx context.Context) error {
	s.chats, s.started = map[discovery.InstanceID]*fleet.Chat{}, map[discovery.Colour]int{}
	s.ending = map[*fleet.Process]bool{}
	if err := os.RemoveAll(s.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	for range s.blue {
		if _, err := s.start(ctx, discovery.Blue, "v1"); err != nil {
			return err
		}
	}
	for range s.green {
		if _, err := s.start(ctx, discovery.Green, "v2"); err != nil {
			return err
		}
	}
	var err error
	if s.web, err = fleet.FreeAddr(); err != nil {
		return err
	}
	s.ctl, err = fleet.StartRolloutd(ctx, fleet.RolloutdOptions{
		Bin: s.bin, Dir: s.dir, Instances: fleet.Instances{service: s.registered},
		Rest: fmt.Sprintf("listeners: [{name: web, address: %s}]\nservices: [{name: %s, policy: %s}]\n", s.web, service, s.policy),
	})
	if err != nil {
		return err
	}
	s.others = append(s.others, s.ctl.Process)
	if s.api, err = s.ctl.Client(); err != nil {
		return err
	}
	return s.raiseEnvoys(ctx)
}

// start starts one more instance of a colour and adds it to what is registered.
func (s *stage) start(ctx context.Context, colour discovery.Colour, version string) (*fleet.Chat, error) {
	s.started[colour]++
	flags := []string{"--feed", s.feed.String(), "--notice", s.notice.String()}
	if colour == discovery.Green {
		flags = append(flags, "--handshake", s.handshake.String())
	}
	c, err := fleet.StartChat(ctx, fleet.ChatOptions{
		Bin: s.bin, Dir: s.dir, Name: discovery.InstanceID(fmt.Sprintf("chat-%.1s%d", colour, s.started[colour])),
		Colour: colour, Version: version, WithoutDrain: s.withoutDrain, Flags: flags,
	})
	if err != nil {
		return nil, err
	}
	c.Instance.Capacity = s.capacity
	s.chats[c.Instance.ID] = c
	s.registered = append(s.registered, c.Instance)
	return c, nil
}

func (s *stage) raiseEnvoys(ctx context.Context) error {
	for _, node := range []string{"edge-1", "edge-2"} {
		envoy, admin, err := fleet.StartEnvoy(ctx, fleet.EnvoyOptions{Node: node, XDS: s.ctl.XDS, Dir: s.dir})
		if err != nil {
			return err
		}
		s.others = append(s.others, envoy)
		if err := envoy.Await(ctx, fleet.Accepts(admin, s.web)); err != nil {
			return err
		}
	}
	return s.await(ctx, "both Envoys to acknowledge their configuration", func(st api.Status) bool {
		return st.Proxies.Confirmed == 2
	})
}

// await polls the service's status until it is as wanted.
func (s *stage) await(ctx context.Context, what string, ok func(api.Status) bool) error {
	for {
		st, err := s.api.Service(ctx, service)
		switch {
		case err == nil && ok(st):
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("waiting for %s: %w (%s)", what, context.Cause(ctx), st.Reason.Text)
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// guardAll cancels the run, saying which log to read, when a process ends by
// itself.
func (s *stage) guardAll(ctx context.Context, cancel context.CancelCauseFunc) {
	for _, p := range s.others {
		s.guard(ctx, p, cancel)
	}
	for _, c := range s.chats {
		s.guard(ctx, c.Process, cancel)
	}
}

func (s *stage) guard(ctx context.Context, p *fleet.Process, cancel context.CancelCauseFunc) {
	s.guards.Go(func() {
		select {
		case <-p.Done():
			s.mu.Lock()
			defer s.mu.Unlock()
			if !s.ending[p] {
				cancel(fmt.Errorf("%s ended by itself (%v); read %s", p.Name, p.Err(), filepath.Join(s.dir, p.Name+".log")))
			}
		case <-ctx.Done():
		}
	})
}

// end stops an instance (SIGTERM), or kills it.
func (s *stage) end(id discovery.InstanceID, how func(*fleet.Process)) {
	p := s.chats[id].Process
	s.mu.Lock()
	s.ending[p] = true
	s.mu.Unlock()
	how(p)
}

func stop(p *fleet.Process) { p.Stop(5 * time.Second) }
func kill(p *fleet.Process) { p.Kill() }

// stopBlue does what a release without the funnel does: it stops the blue
// processes, which drop their connections.
func (s *stage) stopBlue() {
	var stopping sync.WaitGroup
	for id, c := range s.chats {
		if c.Instance.Colour == discovery.Blue {
			stopping.Go(func() { s.end(id, stop) })
		}
	}
	stopping.Wait()
}

// register tells discovery of the instances as they are registered now.
func (s *stage) register() error {
	return s.ctl.WriteInstances(fleet.Instances{service: s.registered})
}

// healthy tells discovery what an instance's health check says.
func (s *stage) healthy(id discovery.InstanceID, h discovery.Health) error {
	i := s.find(id)
	s.registered[i].Health = h
	return s.register()
}

// deregister takes an instance out of discovery.
func (s *stage) deregister(id discovery.InstanceID) error {
	i := s.find(id)
	s.registered = slices.Delete(s.registered, i, i+1)
	return s.register()
}

func (s *stage) find(id discovery.InstanceID) int {
	return slices.IndexFunc(s.registered, func(in fleet.Instance) bool { return in.ID == id })
}

// strike ends everything that was started.
func (s *stage) strike() {
	s.guards.Wait()
	for _, c := range s.chats {
		c.Kill()
	}
	for _, p := range s.others {
		p.Kill()
	}
}
