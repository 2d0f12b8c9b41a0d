package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/examples/fleet"
	"github.com/sluice-proxy/sluice/rollout/api"
)

// service is the one service of the experiment.
const service discovery.Service = "chat"

// stage is a freshly started fleet: 3 blue and 3 green processes, rolloutd and
// two Envoys that share one address, between which the kernel spreads clients.
type stage struct {
	dir    string
	web    netip.AddrPort
	blue   []*fleet.Chat
	others []*fleet.Process // all but the blue processes
	ctl    *fleet.Rolloutd
	api    *api.Client
	guards sync.WaitGroup
}

// raise starts everything in an emptied dir and waits until both Envoys serve.
// What was started is ended by strike, also after an error.
func (s *stage) raise(ctx context.Context, e experiment, withDrain bool) error {
	if err := os.RemoveAll(s.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	var registered []fleet.Instance
	for _, colour := range discovery.Colours {
		for i := range 3 {
			c, err := fleet.StartChat(ctx, fleet.ChatOptions{
				Bin: e.bin, Dir: s.dir, Name: discovery.InstanceID(fmt.Sprintf("chat-%.1s%d", colour, i+1)),
				Colour: colour, Version: map[discovery.Colour]string{discovery.Blue: "v1", discovery.Green: "v2"}[colour],
				WithoutDrain: !withDrain,
			})
			if err != nil {
				return err
			}
			registered = append(registered, c.Instance)
			if colour == discovery.Blue {
				s.blue = append(s.blue, c)
			} else {
				s.others = append(s.others, c.Process)
			}
		}
	}
	var err error
	if s.web, err = fleet.FreeAddr(); err != nil {
		return err
	}
	s.ctl, err = fleet.StartRolloutd(ctx, fleet.RolloutdOptions{
		Bin: e.bin, Dir: s.dir, Instances: fleet.Instances{service: registered},
		Rest: fmt.Sprintf("listeners: [{name: web, address: %s}]\nservices: [{name: %s, policy: {funnel: {close: %d, every: %s}}}]\n",
			s.web, service, e.cap.Close, e.cap.Every),
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

// guard cancels the run, saying which log to read, when a process ends by itself.
// The blue processes are only guarded in a run in which they are not stopped.
func (s *stage) guard(ctx context.Context, blueToo bool, cancel context.CancelCauseFunc) {
	guarded := s.others
	if blueToo {
		for _, c := range s.blue {
			guarded = append(guarded, c.Process)
		}
	}
	for _, p := range guarded {
		s.guards.Go(func() {
			select {
			case <-p.Done():
				cancel(fmt.Errorf("%s ended by itself (%v); read %s", p.Name, p.Err(), filepath.Join(s.dir, p.Name+".log")))
			case <-ctx.Done():
			}
		})
	}
}

// stopBlue does what a release without the funnel does: it stops the blue
// processes, which drop their connections.
func (s *stage) stopBlue() {
	var stopping sync.WaitGroup
	for _, c := range s.blue {
		stopping.Go(func() { c.Stop(5 * time.Second) })
	}
	stopping.Wait()
}

// strike ends everything that was started.
func (s *stage) strike() {
	s.guards.Wait()
	for _, c := range s.blue {
		c.Kill()
	}
	for _, p := range s.others {
		p.Kill()
	}
}
