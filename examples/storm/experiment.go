package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// experiment is what the flags say.
type experiment struct {
	clients   int
	cap       units.Funnel
	reconnect clients.Reconnect
	// handshake is how long green takes to let a client in, patience how long a client
	// tries; 0 is no time, and the swarm's default.
	handshake, patience time.Duration
	// notice is what clients get that are asked.
	notice time.Duration
	// calm is the time of undisturbed connections before and after a run: nobody
	// may be disconnected then.
	calm     time.Duration
	out      string
	bin      fleet.Bin
	progress *progress
}

const (
	setUp  = time.Minute // is for starting everything
	greens = 3           // instances of green, as many as of blue
)

// run raises a fresh fleet, moves every client from blue to green in the way of
// that name, and ends everything again.
func (e experiment) run(ctx context.Context, name string) (recording, error) {
	r := recording{name: name, clients: e.clients, funnel: e.cap}
	ctx, cancel := context.WithCancelCause(ctx)
	s := &stage{
		setting: setting{blue: greens, green: greens, withoutDrain: name == storm, handshake: e.handshake, feed: e.feed(),
			policy: fmt.Sprintf("{funnel: {close: %d, every: %s}}", e.cap.Close, e.cap.Every)},
		dir: filepath.Join(e.out, "logs", name), bin: e.bin,
	}
	if name == asked {
		s.notice = e.notice
		s.policy = fmt.Sprintf("{funnel: {close: %d, every: %s}, notice: %s}", e.cap.Close, e.cap.Every, e.notice)
	}
	defer s.strike()
	defer cancel(nil)
	swarm, leave, err := e.begin(ctx, s, cancel)
	if err != nil {
		return r, err
	}
	defer leave()

	swarm.SlowestEcho() // while they connected does not count
	if name == storm {
		r.began, err = e.storm(ctx, s, swarm)
	} else {
		r.began, err = e.funnel(ctx, s, swarm)
	}
	if err != nil {
		return r, err
	}
	if err := pause(ctx, e.calm); err != nil {
		return r, err
	}
	r.records, r.slowestEcho, r.messages, r.ended = swarm.Records(), swarm.SlowestEcho(), swarm.Messages(), time.Now()
	return r, clients.WriteRecords(filepath.Join(s.dir, "records.jsonl"), r.records)
}

// begin raises the stage and connects every client to blue, undisturbed for a
// moment. The clients go on until leave.
func (e experiment) begin(ctx context.Context, s *stage, cancel context.CancelCauseFunc) (swarm *clients.Swarm, leave func(), err error) {
	e.progress.say(fmt.Sprintf("starting %d chat processes, rolloutd and two Envoys", s.blue+s.green))
	starting, done := context.WithTimeoutCause(ctx, setUp, fmt.Errorf("not up within %s; read the logs in %s", setUp, s.dir))
	defer done()
	if err := s.raise(starting); err != nil {
		return nil, nil, err
	}
	s.guardAll(ctx, cancel)
	swarm, err = clients.New(clients.Options{
		Clients: e.clients, URLs: []string{"ws://" + s.web.String() + "/ws"},
		Dials:     min(e.clients, 1000), // as many at once as would be
		Reconnect: e.reconnect, Handshake: e.patience, ComeOver: s.notice > 0, Ping: e.ping(), Seed: 1,
	})
	if err != nil {
		return nil, nil, err
	}
	var running sync.WaitGroup
	swarming, end := context.WithCancel(ctx)
	running.Go(func() { _ = swarm.Run(swarming) })
	running.Go(func() { e.progress.follow(swarming, swarm) })
	leave = func() { end(); running.Wait() }
	if err := e.gather(ctx, swarm); err != nil {
		leave()
		return nil, nil, err
	}
	return swarm, leave, nil
}

// ping is rare for each client, and often enough across all to notice when the
// way through Envoy is slow.
func (e experiment) ping() time.Duration {
	return min(time.Minute, time.Duration(e.clients)*50*time.Millisecond)
}

// feed is how often everyone is told something: as often as a real chat would be, and in
// all about a thousand messages a second at most.
func (e experiment) feed() time.Duration {
	return max(200*time.Millisecond, time.Duration(e.clients)*time.Millisecond)
}

// gather waits until every client is connected to blue and proves that the
// connections work.
func (e experiment) gather(ctx context.Context, swarm *clients.Swarm) error {
	limit := setUp + time.Duration(e.clients)*5*time.Millisecond
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not connected within %s", limit))
	defer cancel()
	if err := swarm.WaitFor(ctx, func(c clients.Counts) bool { return c.Colour["blue"] == e.clients }); err != nil {
		return err
	}
	if err := swarm.Check(ctx); err != nil {
		return err
	}
	return pause(ctx, e.calm)
}

// storm sends new connections to green, as a plain blue/green release does, and
// stops the blue processes.
func (e experiment) storm(ctx context.Context, s *stage, swarm *clients.Swarm) (time.Time, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, errors.New("not moved within 5 minutes: green cannot take so many at once, with a shorter --handshake it can"))
	defer cancel()
	if _, err := s.ctl.Ctl(ctx, "promote", "green"); err != nil {
		return time.Time{}, err
	}
	err := s.await(ctx, "new connections to go to green", func(st api.Status) bool { return st.Phase == state.Draining })
	if err != nil {
		return time.Time{}, err
	}
	began := time.Now()
	s.stopBlue()
	return began, swarm.WaitFor(ctx, e.moved)
}

// funnel promotes green, whose clients are let go or asked, and waits until rolloutctl says that it is done.
func (e experiment) funnel(ctx context.Context, s *stage, swarm *clients.Swarm) (time.Time, error) {
	steps := (e.clients + e.cap.Close - 1) / e.cap.Close
	limit := time.Duration(steps)*e.cap.Every.D() + 2*time.Minute
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not moved within %s", limit))
	defer cancel()
	began := time.Now()
	if _, err := s.ctl.Ctl(ctx, "promote", "green", "--wait",
		"--close", strconv.Itoa(e.cap.Close), "--every", e.cap.Every.String()); err != nil {
		return began, cmp.Or(context.Cause(ctx), err)
	}
	return began, swarm.WaitFor(ctx, e.moved)
}

func (e experiment) moved(c clients.Counts) bool {
	return c.Colour["green"] == e.clients && c.Colour["blue"] == 0
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
