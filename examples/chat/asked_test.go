package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/rollout/drain"
)

// TestAsksFirst: who is asked and comes over is connected all the time and hears every
// message once, though each instance tells it when it comes to it and green is slow to let
// clients in; who does not listen is let go at the end of the notice.
func TestAsksFirst(t *testing.T) {
	for name, c := range map[string]struct {
		notice time.Duration
		listen bool
	}{
		"who listens": {time.Minute, true}, "who does not": {50 * time.Millisecond, false},
	} {
		t.Run(name, func(t *testing.T) {
			const n = 8
			gate, swarm := moved(t, n, c.notice, c.listen)
			seen := map[clients.Kind]int{}
			for _, r := range swarm.Records() {
				seen[r.Kind]++
			}
			left, ended := n, 0
			if c.listen {
				left, ended = 0, n
			}
			if seen[clients.Joined] != 2*n || seen[clients.Asked] != n || seen[clients.Ended] != ended || seen[clients.Left] != left {
				t.Errorf("clients: %v", seen)
			}
			if m := swarm.Messages(); m.Heard == 0 || c.listen && m.Lost+m.Unanswered != 0 || !c.listen && (m.Lost == 0 || m.Twice != 0) {
				t.Errorf("messages: %+v", m)
			}
			if s := gate.Status(); s.Evicted != n || s.Left != uint64(ended) || s.Overstayed != uint64(left) {
				t.Errorf("evicted %d, left %d, overstayed %d", s.Evicted, s.Left, s.Overstayed)
			}
		})
	}
}

// moved has n clients move from blue to green, whose gates they see as one server.
func moved(t *testing.T, n int, notice time.Duration, listen bool) (blue *drain.Gate, swarm *clients.Swarm) {
	raise := func(colour string, handshake time.Duration) (*drain.Gate, http.Handler) {
		gate := drain.New(drain.Options{CountsReturns: true, Notice: time.Minute})
		s := newServer(hello{Instance: "chat-" + colour, Colour: colour, Version: "v1"}, slog.New(slog.DiscardHandler))
		s.asks, s.loop = true, newLoop(handshake)
		t.Cleanup(s.feed(20 * time.Millisecond))
		return gate, s.handler(gate)
	}
	blue, from := raise("blue", 0)
	_, to := raise("green", 5*time.Millisecond)
	var now atomic.Pointer[http.Handler]
	now.Store(&from)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*now.Load()).ServeHTTP(w, r) }))
	t.Cleanup(front.Close)
	endpoint := httptest.NewServer(blue.Endpoint())
	t.Cleanup(endpoint.Close)
	swarm, err := clients.New(clients.Options{
		Clients: n, URLs: []string{strings.Replace(front.URL, "http", "ws", 1) + "/ws"}, ComeOver: listen,
		Ping: time.Duration(n) * 10 * time.Millisecond, Reconnect: clients.Reconnect{Base: 200 * time.Millisecond, Max: 200 * time.Millisecond, Least: 100 * time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { _ = swarm.Run(running) })
	t.Cleanup(func() { stop(); run.Wait() })
	if err := swarm.WaitAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	now.Store(&to)
	order(t, endpoint.URL, fmt.Sprintf(`{"rollout":"r1","epoch":1,"step":1,"ceiling":0,"over_ms":100,"start_ms":0,"notice_ms":%d}`, notice.Milliseconds()))
	if err := swarm.WaitFor(t.Context(), func(c clients.Counts) bool { return c.Colour["green"] == n && c.Colour["blue"] == 0 }); err != nil {
		t.Fatal(err)
	}
	if err := swarm.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	for s := blue.Status(); s.Active+s.Lingering > 0; s = blue.Status() {
		runtime.Gosched() // it sees the end of a connection after its client does
	}
	return blue, swarm
}
