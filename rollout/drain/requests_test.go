//go:build go1.26

package drain

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// asking is a gate before a handler that answers when it is told to, or when its context
// ends. Use it in a bubble.
type asking struct {
	*Gate
	answer map[string]chan bool

	mu    sync.Mutex
	ended map[string]error // by path, why its context had ended; nil: it was answered
}

func newAsking(opt Options) *asking {
	return &asking{Gate: New(opt), answer: map[string]chan bool{}, ended: map[string]error{}}
}

// ask sends a request with these headers, and has it be under way.
func (a *asking) ask(path, kind, accept string) {
	answer := make(chan bool)
	a.answer[path] = answer
	r := httptest.NewRequest("POST", path, strings.NewReader("x"))
	r.Header.Set("Content-Type", kind)
	go a.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", accept)
		if accept != "" {
			_, _ = io.WriteString(w, "begun\n")
			w.(http.Flusher).Flush()
		}
		select {
		case <-answer:
		case <-r.Context().Done():
			a.mu.Lock()
			defer a.mu.Unlock()
			a.ended[path] = context.Cause(r.Context())
		}
	})).ServeHTTP(httptest.NewRecorder(), r)
	synctest.Wait()
}

func (a *asking) has(t *testing.T, active, requests, lingering int) {
	t.Helper()
	synctest.Wait()
	s := a.Status()
	if s.Active != active || s.Requests != requests || s.Lingering != lingering || s.Check() != nil || !s.PeersAgree() {
		t.Errorf("active %d, requests %d, lingering %d (%v, peers %v); want %d, %d and %d", s.Active, s.Requests, s.Lingering, s.Check(), s.Peers, active, requests, lingering)
	}
}

// A short request ends by itself, however many are let go; what lasts is picked.
func TestShortRequestsEndByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAsking(Options{})
		a.ask("/slow", "text/plain", "")
		a.ask("/page", "text/plain", "text/html")
		a.ask("/events", "", "text/event-stream; charset=utf-8")
		a.has(t, 1, 2, 0)
		if s := a.Status(); s.Accepted != 1 || s.State != contract.Serving {
			t.Errorf("%+v, want 1 accepted", s)
		}
		mustOrder(t, a.Gate, 1, new(0), 0, 0)
		time.Sleep(3 * time.Second)
		a.has(t, 0, 2, 0)
		if s := a.Status(); s.Evicted != 1 || s.State != contract.Draining {
			t.Errorf("%+v, want 1 evicted and not drained", s)
		}
		close(a.answer["/slow"])
		close(a.answer["/page"])
		a.has(t, 0, 0, 0)
		if a.Status().State != contract.Drained || len(a.ended) != 1 || a.ended["/events"] != ErrEvicted {
			t.Errorf("%s, ended %v", a.Status().State, a.ended)
		}
	})
}

// Who takes longer than Options.Long counts among the connections, and is let go by an
// order that stands as well as by one that comes, at its distances.
func TestRequestsThatLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAsking(Options{Long: 5 * time.Second})
		for i := range 3 {
			a.ask(fmt.Sprint("/", i), "", "")
		}
		time.Sleep(5 * time.Second)
		a.has(t, 3, 0, 0)
		for i := range 3 {
			a.ask(fmt.Sprint("/late/", i), "", "")
		}
		mustOrder(t, a.Gate, 1, new(2), 2*time.Second, 0) // of 3 one goes, 2 may stay
		time.Sleep(4 * time.Second)
		a.has(t, 2, 3, 0)
		time.Sleep(time.Second) // three come to last
		a.has(t, 5, 0, 0)
		for want := 5; want > 2; want-- { // and go at the distances of the order
			time.Sleep(2*time.Second - time.Millisecond)
			a.has(t, want, 0, 0)
			time.Sleep(time.Millisecond)
			a.has(t, want-1, 0, 0)
		}
		time.Sleep(time.Hour)
		a.has(t, 2, 0, 0)
		// A new order counts them as well, and a hold lets none go.
		mustOrder(t, a.Gate, 2, nil, 0, 0)
		time.Sleep(time.Hour)
		a.has(t, 2, 0, 0)
		mustOrder(t, a.Gate, 3, new(0), 0, 0)
		a.has(t, 0, 0, 0)
		if s := a.Status(); s.Accepted != 6 || s.Evicted != 6 || s.State != contract.Drained {
			t.Errorf("%+v, want 6 of 6 evicted", s)
		}
	})
}

// An order that stands lets go who comes to last, whether anybody looks or not.
func TestRequestsThatLastUnderAnOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAsking(Options{Long: 5 * time.Second})
		a.ask("/a", "", "")
		time.Sleep(3 * time.Second)
		a.ask("/b", "", "")
		mustOrder(t, a.Gate, 1, new(0), 0, 0)
		time.Sleep(time.Minute)
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.ended["/a"] != ErrEvicted || a.ended["/b"] != ErrEvicted {
			t.Errorf("ended: %v, want both evicted", a.ended)
		}
	})
}

// A gRPC call counts as a stream when its answer has begun and does not end.
func TestStreamsOfRPC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAsking(Options{})
		for path, kind := range map[string]string{"/grpc": "application/grpc", "/web": "application/grpc-web+proto", "/connect": "application/connect+json"} {
			a.ask(path, kind, kind)
		}
		a.ask("/unary", "application/grpc", "") // nothing was answered so far
		a.has(t, 3, 1, 0)
		mustOrder(t, a.Gate, 1, new(0), 0, 0)
		a.has(t, 0, 1, 0)
		close(a.answer["/unary"])
		a.has(t, 0, 0, 0)
	})
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{})
		for range 10 {
			r := httptest.NewRequest("POST", "/", nil)
			r.Header.Set("Content-Type", "application/grpc")
			g.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush() })).ServeHTTP(httptest.NewRecorder(), r)
		}
		if s := g.Status(); s.Held() != 0 || s.Accepted != 0 {
			t.Errorf("%+v: single calls are no connections", s)
		}
	})
}

// A returning client counts when its request lasts.
func TestReturnedWithARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, goOn := New(Options{}), make(chan bool)
		serve := func() {
			g.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { Returned(r); <-goOn })).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
		}
		go serve()
		synctest.Wait()
		if s := g.Status(); *s.Returned != 0 || s.Check() != nil {
			t.Errorf("%+v (%v), want none returned", s, s.Check())
		}
		time.Sleep(10 * time.Second)
		if s := g.Status(); *s.Returned != 1 || s.Accepted != 1 {
			t.Errorf("%+v, want 1 returned", s)
		}
		close(goOn)
	})
}

func BenchmarkRequest(b *testing.B) {
	g := New(Options{})
	h := g.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}
