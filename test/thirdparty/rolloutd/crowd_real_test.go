//go:build real

package rolloutd_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// crowd is clients of every kind that stay connected and come back when they are
// disconnected: WebSockets that say nothing and that talk all the time, event
// streams, and raw TCP connections.
type crowd struct {
	w            *world
	idle, active *clients.Swarm
	streams      *callers
	lines        *callers
}

// gather begins to connect a crowd; on waits for it.
func (w *world) gather(sockets int) *crowd {
	w.t.Helper()
	c := &crowd{w: w,
		streams: &callers{size: 4, dial: w.stream, now: map[string]int{}},
		lines:   &callers{size: 10, dial: w.call, now: map[string]int{}},
	}
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(w.ctx)
	w.t.Cleanup(func() { cancel(); all.Wait() })
	for at, ping := range map[**clients.Swarm]time.Duration{&c.idle: 0, &c.active: 100 * time.Millisecond} {
		s, err := clients.New(clients.Options{
			Clients: sockets / 2, URLs: []string{"ws://" + w.web.String() + "/ws"}, Ping: ping,
			Reconnect: clients.Reconnect{Base: 50 * time.Millisecond, Max: 500 * time.Millisecond},
		})
		w.must(err)
		*at = s
		all.Go(func() { _ = s.Run(ctx) })
	}
	all.Go(func() { c.streams.run(ctx) })
	all.Go(func() { c.lines.run(ctx) })
	return c
}

// on waits until every client of a service is connected to a colour, and proves
// that each connection works.
func (c *crowd) on(s discovery.Service, colour discovery.Colour) {
	c.w.t.Helper()
	if s == line {
		c.w.until("all on "+string(colour), func() error { return c.lines.missing(colour) })
		return
	}
	c.w.until("all on "+string(colour), func() error {
		for _, s := range []*clients.Swarm{c.idle, c.active} {
			if now := s.Connected(); now.Colour[string(colour)] != s.Size() {
				return errors.New(now.String())
			}
		}
		return c.streams.missing(colour)
	})
	c.works()
}

// works has every WebSocket that is connected say something and hear it again;
// if the funnel takes one of them meanwhile, then once more.
func (c *crowd) works() {
	c.w.t.Helper()
	c.w.until("every WebSocket to echo", func() error {
		began := time.Now()
		ctx, cancel := context.WithTimeout(c.w.ctx, 5*time.Second)
		defer cancel()
		err := errors.Join(c.idle.Check(ctx), c.active.Check(ctx))
		if err != nil && len(c.left(chat, began)) == 0 {
			c.w.t.Fatal(err)
		}
		return err
	})
}

// records is what a service's clients went through since a moment, in order.
func (c *crowd) records(s discovery.Service, since time.Time) []clients.Record {
	var all []clients.Record
	if s == line {
		all = c.lines.all()
	} else {
		for i, rs := range [][]clients.Record{c.idle.Records(), c.active.Records(), c.streams.all()} {
			for _, r := range rs {
				r.Client += i * 10_000
				all = append(all, r)
			}
		}
	}
	all = slices.DeleteFunc(all, func(r clients.Record) bool { return r.At.Before(since) })
	slices.SortStableFunc(all, func(a, b clients.Record) int { return a.At.Compare(b.At) })
	return all
}

// left is who was disconnected since a moment.
func (c *crowd) left(s discovery.Service, since time.Time) []clients.Record {
	return slices.DeleteFunc(c.records(s, since), func(r clients.Record) bool { return r.Kind != clients.Left })
}

// quiet waits until nobody has been disconnected for d.
func (c *crowd) quiet(s discovery.Service, d time.Duration) {
	c.w.t.Helper()
	from := time.Now()
	c.w.until("nobody to be disconnected", func() error {
		if n := len(c.left(s, time.Now().Add(-d))); n > 0 || time.Since(from) < d {
			return fmt.Errorf("%d were within %s", n, d)
		}
		return nil
	})
}

// kept checks what was promised about one rollout on what its clients went
// through since it began, and that the rollout knows of each.
func (c *crowd) kept(s discovery.Service, since time.Time, f units.Funnel, r state.Record) {
	c.w.t.Helper()
	left := c.left(s, since)
	c.gently(left, f)
	if uint64(len(left)) != r.Evicted {
		c.w.t.Errorf("%s: %d clients were disconnected, and rollout %s says that it evicted %d", s, len(left), r.ID, r.Evicted)
	}
	refused := 0
	for _, x := range c.records(s, since) {
		if x.Kind != clients.Refused {
			continue
		}
		if refused++; x.Status != http.StatusServiceUnavailable {
			c.w.t.Errorf("%s client %d could not connect: %d %s", s, x.Client, x.Status, x.Cause)
		}
	}
	c.w.t.Logf("%s: %d disconnected, %d refused", s, len(left), refused)
}

// gently checks that clients were disconnected by the funnel only, at most once
// from either colour, and never more than the cap at once.
func (c *crowd) gently(left []clients.Record, f units.Funnel) {
	c.w.t.Helper()
	type once struct {
		client int
		colour string
	}
	times := map[once]int{}
	for _, l := range left {
		if !l.Planned() {
			c.w.t.Errorf("client %d was disconnected from %s by something else than the funnel: %s (%d)", l.Client, l.Hello.Instance, l.Cause, l.Code)
		}
		if times[once{l.Client, l.Hello.Colour}]++; times[once{l.Client, l.Hello.Colour}] == 2 {
			c.w.t.Errorf("client %d was disconnected from %s twice in one rollout", l.Client, l.Hello.Colour)
		}
	}
	// What is seen at a client may come late on a busy machine.
	late := f.Every.D() / 5
	for i := range left {
		n := 0
		for j := i; j < len(left) && left[j].At.Sub(left[i].At) < f.Every.D()-late; j++ {
			n++
		}
		if n > f.Close+1 {
			c.w.t.Errorf("%d clients were disconnected within %s from %s on; the cap is %s", n, f.Every.D()-late, left[i].At, f)
			return
		}
	}
}
