//go:build real

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/examples/fleet"
	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/drain"
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

// gather connects a crowd and waits until all are there.
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

// works has every WebSocket that is connected say something and hear it again.
func (c *crowd) works() {
	c.w.t.Helper()
	ctx, cancel := context.WithTimeout(c.w.ctx, 10*time.Second)
	defer cancel()
	c.w.must(c.idle.Check(ctx))
	c.w.must(c.active.Check(ctx))
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
func (c *crowd) kept(s discovery.Service, since time.Time, f rollout.Funnel, r rollout.Record) {
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
func (c *crowd) gently(left []clients.Record, f rollout.Funnel) {
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

// callers are clients that speak no WebSocket. Whoever is disconnected comes
// back soon, unless they are kept away.
type callers struct {
	size int
	dial func(ctx context.Context, returning bool) (call, error)

	mu      sync.Mutex
	away    bool
	records []clients.Record
	now     map[string]int // connected, by colour
}

// call is one established connection. stay returns when it ends: nil when it
// was the server that ended it in its protocol's own way. end ends it.
type call struct {
	hello clients.Hello
	stay  func() error
	end   func()
}

func (c *callers) run(ctx context.Context) {
	var all sync.WaitGroup
	for i := range c.size {
		all.Go(func() {
			for returning := false; ctx.Err() == nil; {
				returning = c.once(ctx, i, returning) || returning
				select {
				case <-ctx.Done():
				case <-time.After(50 * time.Millisecond):
				}
			}
		})
	}
	all.Wait()
}

func (c *callers) once(ctx context.Context, i int, returning bool) bool {
	c.mu.Lock()
	away := c.away && returning
	c.mu.Unlock()
	if away {
		return false
	}
	x, err := c.dial(ctx, returning)
	if err != nil {
		if ctx.Err() == nil {
			c.add(clients.Record{Client: i, Kind: clients.Refused, Cause: err.Error()}, 0)
		}
		return false
	}
	c.add(clients.Record{Client: i, Kind: clients.Joined, Hello: x.hello}, 1)
	r := clients.Record{Client: i, Kind: clients.Left, Hello: x.hello, Code: websocket.StatusServiceRestart}
	if err := x.stay(); err != nil {
		r.Code, r.Cause = -1, err.Error()
	}
	if ctx.Err() == nil {
		c.add(r, -1)
	}
	return true
}

func (c *callers) add(r clients.Record, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.At = time.Now()
	c.records = append(c.records, r)
	c.now[r.Hello.Colour] += n
}

func (c *callers) keepAway(away bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = away
}

func (c *callers) all() []clients.Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.records)
}

func (c *callers) missing(colour discovery.Colour) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now[string(colour)] == c.size {
		return nil
	}
	return fmt.Errorf("of %d there are %v", c.size, c.now)
}

// stream opens an event stream.
func (w *world) stream(ctx context.Context, returning bool) (call, error) {
	url := "http://" + w.web.String() + "/events"
	if returning {
		url += "?returning=1"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return call{}, err
	}
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return call{}, err
	}
	lines := bufio.NewReader(res.Body)
	var x call
	event, err := lines.ReadString('\n')
	data, err2 := lines.ReadString('\n')
	err = errors.Join(err, err2, json.Unmarshal([]byte(strings.TrimPrefix(data, "data: ")), &x.hello))
	if err != nil {
		res.Body.Close()
		return call{}, fmt.Errorf("%s %q: %w", res.Status, event+data, err)
	}
	x.end = func() { res.Body.Close() }
	x.stay = func() error {
		defer x.end()
		_, err := io.Copy(io.Discard, lines)
		return err
	}
	return x, nil
}

// call opens a raw TCP connection and talks on it.
func (w *world) call(ctx context.Context, returning bool) (call, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", w.raw.String())
	if err != nil {
		return call{}, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	in := bufio.NewReader(c)
	var x call
	fmt.Fprintln(c, map[bool]string{false: "new", true: "back"}[returning])
	hello, err := in.ReadBytes('\n')
	if err := errors.Join(err, json.Unmarshal(hello, &x.hello)); err != nil {
		c.Close()
		return call{}, fmt.Errorf("hello %q: %w", hello, err)
	}
	x.end = func() { stop(); c.Close() }
	x.stay = func() error {
		defer x.end()
		for {
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := fmt.Fprintln(c, "still there?"); err != nil {
				return err
			}
			if _, err := in.ReadString('\n'); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return x, nil
}

// startLine is an instance of a raw TCP service: it hears whether the client is
// new or back, says who it is, then says again what it hears.
func startLine(t *testing.T, name string, c discovery.Colour) fleet.Instance {
	t.Helper()
	gate := drain.New(drain.Options{CountsReturns: true})
	var listeners [2]net.Listener
	for i := range listeners {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		listeners[i] = l
	}
	go func() { _ = http.Serve(listeners[1], gate.Endpoint()) }()
	go func() {
		for l := gate.Listener(listeners[0]); ; {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				if first, err := in.ReadString('\n'); err == nil && first == "back\n" {
					conn.(interface{ Returned() }).Returned()
				}
				_ = json.NewEncoder(conn).Encode(clients.Hello{Instance: name, Colour: string(c)})
				_, _ = io.Copy(conn, in)
			}()
		}
	}()
	return fleet.Instance{
		ID: discovery.InstanceID(name), Colour: c, Address: listeners[0].Addr().String(), Drain: listeners[1].Addr().String(),
	}
}
