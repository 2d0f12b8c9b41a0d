package main

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// heard is an output that others can wait on.
type heard struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func newHeard() *heard { return &heard{more: make(chan struct{})} }

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.more)
	h.more = make(chan struct{})
	return h.text.Write(p)
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.String()
}

// await waits until text was written.
func (h *heard) await(t *testing.T, ctx context.Context, text string) {
	for {
		h.mu.Lock()
		found, more := strings.Contains(h.text.String(), text), h.more
		h.mu.Unlock()
		if found {
			return
		}
		select {
		case <-more:
		case <-ctx.Done():
			t.Fatalf("never said %q, but\n%s", text, h)
		}
	}
}

func serveAt(t *testing.T, addr string, h http.Handler) *httptest.Server {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	ts := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	ts.Start()
	return ts
}

// --wait and watch outlive rolloutd: they say that it is away and that it is back.
func TestOutlivesAServer(t *testing.T) {
	for _, args := range [][]string{{"promote", "green", "--wait"}, {"watch"}} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		out, errs := newHeard(), newHeard()
		a := &actor{set: map[string]string{"answer": "chat-1 chat: off it goes"}, now: "draining"}
		ts := serveAt(t, "127.0.0.1:0", a.handler())
		addr := ts.Listener.Addr().String()
		watching, stop := context.WithCancel(ctx)
		var done sync.WaitGroup
		code := -1
		done.Go(func() { code = run(watching, append(args, "--server", "http://"+addr), out, errs) })
		out.await(t, ctx, "draining")
		ts.CloseClientConnections()
		ts.Close()
		errs.await(t, ctx, "still trying")
		// It comes back, is not ready at first, and has finished the rollout.
		starting := &actor{set: map[string]string{"ready": "chat is not read yet"}, now: "done"}
		finished := &actor{set: map[string]string{}, now: "done"}
		calls := 0
		ts = serveAt(t, addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if calls++; calls == 1 {
				starting.handler().ServeHTTP(w, r)
				return
			}
			finished.handler().ServeHTTP(w, r)
		}))
		errs.await(t, ctx, "rolloutd is back")
		out.await(t, ctx, "chat steady, green live")
		if args[0] == "watch" {
			stop()
		}
		done.Wait()
		stop()
		cancel()
		ts.CloseClientConnections()
		ts.Close()
		if code != 0 || strings.Count(errs.String(), "still trying") != 1 {
			t.Errorf("%v: exit %d\n%s%s", args, code, out, errs)
		}
		if args[0] == "promote" && !strings.Contains(out.String(), "rollout chat-1 is done: green is live") {
			t.Errorf("no outcome in\n%s", out)
		}
	}
}

// Ctrl-C leaves the rollout going and says so; --wait does not know the outcome.
func TestInterrupted(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"promote", "green", "--wait"}, exitFailed, "rollout chat-1 goes on"},
		{[]string{"watch"}, exitDone, "goes on by itself"},
		{[]string{"watch", "-o", "json"}, exitDone, "goes on by itself"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		out, errs := newHeard(), newHeard()
		ts := serveAt(t, "127.0.0.1:0", (&actor{set: map[string]string{"answer": "chat-1 chat: off it goes"}, now: "draining"}).handler())
		interrupted, interrupt := context.WithCancel(ctx)
		var done sync.WaitGroup
		code := -1
		done.Go(func() { code = run(interrupted, append(c.args, "--server", ts.URL), out, errs) })
		out.await(t, ctx, "draining")
		interrupt()
		done.Wait()
		cancel()
		ts.CloseClientConnections()
		ts.Close()
		if code != c.code || !strings.Contains(errs.String(), c.says) || strings.Count(errs.String(), "\n") != 1 {
			t.Errorf("%v: exit %d, want %d\n%s", c.args, code, c.code, errs)
		}
		if c.args[len(c.args)-1] == "json" && (!strings.HasPrefix(out.String(), `{"at":`) || strings.Count(out.String(), "\n") < 1) {
			t.Errorf("watch -o json prints\n%s", out)
		}
	}
}
