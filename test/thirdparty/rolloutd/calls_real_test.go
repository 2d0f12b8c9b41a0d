//go:build real

package rolloutd_test

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
	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/test/fleet"
)

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
