package clients

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// server says hello, echoes, and closes with the next code that is asked for.
type server struct {
	*httptest.Server
	mu    sync.Mutex
	conns []*websocket.Conn
	wrong int // handshakes that are still to be refused
	back  int // clients that said they return
}

func newServer(t *testing.T) *server {
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		if s.wrong > 0 {
			s.wrong--
			s.mu.Unlock()
			http.Error(w, "full", http.StatusServiceUnavailable)
			return
		}
		if r.URL.Query().Get("returning") == "1" {
			s.back++
		}
		s.mu.Unlock()
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		s.mu.Lock()
		s.conns = append(s.conns, c)
		s.mu.Unlock()
		_ = c.Write(r.Context(), websocket.MessageText, []byte(`{"instance":"chat-b1","colour":"blue","version":"v1"}`))
		for {
			typ, b, err := c.Read(r.Context())
			if err != nil {
				return
			}
			_ = c.Write(r.Context(), typ, b)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) url() string { return "ws" + strings.TrimPrefix(s.URL, "http") }

// take returns the newest n connections.
func (s *server) take(n int) []*websocket.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	conns := slices.Clone(s.conns[len(s.conns)-n:])
	s.conns = s.conns[:len(s.conns)-n]
	return conns
}

// start runs a swarm until the test ends.
func start(t *testing.T, opt Options) *Swarm {
	s, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { _ = s.Run(ctx) })
	t.Cleanup(func() { stop(); run.Wait() })
	return s
}

func TestDisconnectsAndReturnsAreRecorded(t *testing.T) {
	srv := newServer(t)
	srv.wrong = 2
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s := start(t, Options{Clients: 5, URLs: []string{srv.url()}, Reconnect: Reconnect{Base: time.Millisecond, Max: time.Millisecond}})
	if err := s.WaitAll(ctx); err != nil {
		t.Fatal(err)
	}
	if c := s.Connected(); c.Instance["chat-b1"] != 5 || c.Colour["blue"] != 5 {
		t.Fatalf("connected: %+v", c)
	}
	if err := s.Check(ctx); err != nil {
		t.Fatal(err)
	}

	conns := srv.take(2)
	_ = conns[0].Close(websocket.StatusServiceRestart, "")
	_ = conns[1].CloseNow()
	returned := func() bool {
		srv.mu.Lock()
		defer srv.mu.Unlock()
		return srv.back == 2
	}
	if err := s.WaitFor(ctx, func(c Counts) bool { return c.Total == 5 && returned() }); err != nil {
		t.Fatal(err)
	}

	var joined, refused, planned, unplanned int
	for _, r := range s.Records() {
		switch {
		case r.Kind == Joined:
			joined++
		case r.Kind == Refused && r.Status == http.StatusServiceUnavailable:
			refused++
		case r.Planned():
			planned++
		case r.Kind == Left && r.Code == -1:
			unplanned++
		}
	}
	if joined != 7 || refused != 2 || planned != 1 || unplanned != 1 {
		t.Errorf("joined %d, refused %d, planned %d, unplanned %d; want 7, 2, 1, 1\n%+v", joined, refused, planned, unplanned, s.Records())
	}
}

func TestEndOfRunIsNoDisconnect(t *testing.T) {
	srv := newServer(t)
	s, err := New(Options{Clients: 3, URLs: []string{srv.url()}, Ping: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { _ = s.Run(ctx) })
	if err := s.WaitAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	for s.SlowestEcho() == 0 {
		if t.Context().Err() != nil {
			t.Fatal("no ping was echoed")
		}
		runtime.Gosched()
	}
	stop()
	run.Wait()
	if n := len(s.Records()); n != 3 {
		t.Errorf("%d records, want the 3 joins: %+v", n, s.Records())
	}
	if c := s.Connected(); c.Total != 0 || c.Colour["blue"] != 0 {
		t.Errorf("still counted: %+v", c)
	}
}

func TestReconnect(t *testing.T) {
	for text, want := range map[string]Reconnect{
		"at-once":            {},
		"uniform:5s":         {Base: 5 * time.Second, Max: 5 * time.Second},
		"uniform:3s..5s":     {Base: 2 * time.Second, Max: 2 * time.Second, Least: 3 * time.Second},
		"backoff:500ms..10s": {Base: 500 * time.Millisecond, Max: 10 * time.Second},
	} {
		got, err := ParseReconnect(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%s: %v (%s), %v", text, got, got, err)
		}
	}
	for _, text := range []string{"", "later", "at-once:1s", "uniform", "uniform:-1s", "uniform:0s", "uniform:5s..3s", "uniform:-1s..3s", "backoff:10s", "backoff:10s..1s"} {
		if r, err := ParseReconnect(text); err == nil {
			t.Errorf("%q was read as %v", text, r)
		}
	}
}

func TestDelayDoublesUpToMax(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	longest := func(r Reconnect, attempt int) (most time.Duration) {
		for range 2000 {
			most = max(most, r.Delay(attempt, rng))
		}
		return most
	}
	r := Reconnect{Base: time.Second, Max: 10 * time.Second}
	for attempt, top := range map[int]time.Duration{0: time.Second, 1: 2 * time.Second, 3: 8 * time.Second, 4: 10 * time.Second, 100: 10 * time.Second} {
		if got := longest(r, attempt); got >= top || got < top*9/10 {
			t.Errorf("attempt %d: longest of 2000 delays is %s, want just below %s", attempt, got, top)
		}
	}
	least := Reconnect{Base: 2 * time.Second, Max: 2 * time.Second, Least: 3 * time.Second}
	for range 2000 {
		if got := least.Delay(0, rng); got < 3*time.Second || got >= 5*time.Second {
			t.Fatalf("between 3 and 5 s: %s", got)
		}
	}
	if got := longest(Reconnect{}, 0); got != 0 {
		t.Errorf("at once waits %s", got)
	}
}
