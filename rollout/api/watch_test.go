package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
)

// pipes is a network in memory.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// world is what Views says; change replaces it.
type world struct {
	mu    sync.Mutex
	step  uint64
	newer chan struct{}
}

func (w *world) views() (map[discovery.Service]rollout.View, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := view()
	v.State.Rollout.Step = w.step
	return map[discovery.Service]rollout.View{"chat": v}, w.newer
}

func (w *world) change() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.step++
	close(w.newer)
	w.newer = make(chan struct{})
}

// inMemory serves s in this bubble and returns a client of it.
func inMemory(t *testing.T, s Server) *Client {
	p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	srv := &http.Server{Handler: s.Handler(), BaseContext: func(net.Listener) context.Context { return ctx }}
	var served sync.WaitGroup
	served.Go(func() { _ = srv.Serve(p) })
	client, err := NewClient("http://rolloutd", s.Token)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DialContext: p.dial}
	client.http.Transport = transport
	t.Cleanup(func() {
		cancel()
		transport.CloseIdleConnections()
		_ = srv.Close()
		served.Wait()
	})
	return client
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{newer: make(chan struct{})}
		s := server(new(rollout.Command))
		s.Views, s.Token = w.views, "secret"
		client := inMemory(t, s)
		// Changes every 10 ms for a second, then none.
		var changes sync.WaitGroup
		changes.Go(func() {
			for range 100 {
				time.Sleep(10 * time.Millisecond)
				w.change()
			}
		})
		start := time.Now()
		var at []time.Duration
		var steps []uint64
		for world, err := range client.Watch(t.Context(), "chat") {
			if err != nil {
				t.Fatal(err)
			}
			at = append(at, time.Since(start))
			steps = append(steps, world.Services[0].Rollout.Step)
			if time.Since(start) > 10*time.Second {
				break
			}
		}
		changes.Wait()
		// At once, then one line per change, at most 5 a second, newest wins …
		if at[0] != 0 || at[1] < 200*time.Millisecond || at[1] > 220*time.Millisecond || steps[1] < 19 {
			t.Errorf("lines came at %v with steps %v", at, steps)
		}
		for i := 1; i < len(at); i++ {
			if gap := at[i] - at[i-1]; gap < watchGap || gap > watchBeat {
				t.Errorf("line %d came %s after the one before", i, gap)
			}
		}
		// … and in the quiet afterwards one every 5 s: two, of the last step.
		if n := len(at); n < 7 || n > 9 || steps[n-1] != 100 || steps[n-2] != 100 || steps[n-3] != 100 || at[n-1]-at[n-2] != watchBeat {
			t.Errorf("lines came at %v with steps %v", at, steps)
		}
	})
}

func TestWatchEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := server(new(rollout.Command))
		client := inMemory(t, s)
		for _, err := range client.Watch(t.Context(), "nope") {
			if r, ok := errors.AsType[*rollout.Refusal](err); !ok || r.Code != rollout.UnknownService {
				t.Errorf("watching an unknown service: %v", err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var last error
		for _, err := range client.Watch(ctx, "") {
			last = err
		}
		if !errors.Is(last, context.DeadlineExceeded) {
			t.Errorf("the watch ended with %v", last)
		}
	})
}

// A server that stands still is noticed.
func TestWatchSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := server(new(rollout.Command))
		calls, stuck := 0, make(chan struct{})
		views := s.Views
		s.Views = func() (map[discovery.Service]rollout.View, <-chan struct{}) {
			if calls++; calls > 2 {
				<-stuck
			}
			return views()
		}
		client := inMemory(t, s)
		start := time.Now()
		var last error
		for _, err := range client.Watch(t.Context(), "") {
			last = err
		}
		if last == nil || !strings.Contains(last.Error(), "said nothing for 15s") || time.Since(start) > 25*time.Second {
			t.Errorf("after %s: %v", time.Since(start), last)
		}
		close(stuck)
	})
}

func TestClientTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := server(new(rollout.Command))
		s.Do = func(ctx context.Context, _ rollout.Command) (rollout.Answer, error) {
			<-ctx.Done()
			return rollout.Answer{}, ctx.Err()
		}
		_, err := inMemory(t, s).Pause(t.Context(), "chat")
		if err == nil || !strings.Contains(err.Error(), "no answer within 30s") {
			t.Errorf("a command that takes for ever: %v", err)
		}
	})
}
