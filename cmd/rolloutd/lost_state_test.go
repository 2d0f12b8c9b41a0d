package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// The state is lost after green went live: the instances remember it, so nobody is sent
// to blue, which refuses everybody.
func TestLostState(t *testing.T) {
	p := newProgram(t, 9)
	before := p.onGreen()
	p.lose()
	p.launch()
	l := p.listenAgain("edge-1", before)
	p.until("green is live again", func() bool { return p.status("chat").Live == discovery.Green })
	p.until("the proxy holds what is published", func() bool { return p.status("chat").Proxies.Confirmed == 1 })
	if _, heard := l.weight("chat-blue"); heard {
		t.Error("the proxy, which had the right routes, was sent others")
	}
	if s := p.status("chat"); s.Last == nil || s.Last.Outcome != state.Adopted {
		t.Errorf("the history does not say it: %+v", s.Last)
	}
	if p.closes() != 9 || p.gates[1].Status().Active != 9 {
		t.Errorf("%d closes, green holds %d", p.closes(), p.gates[1].Status().Active)
	}
	if answer, err := p.api.Promote(t.Context(), "chat", api.Promotion{Target: "blue"}); err != nil || answer.Rollout != "chat-3" {
		t.Fatalf("promote: %+v, %v", answer, err)
	}
	p.until("back on blue", func() bool { return p.status("chat").Live == discovery.Blue })
}

// The same, and green does not answer: nothing proves which colour is live. The proxy
// keeps what it has, a new one says so, and an operator settles it.
func TestLostStateThatNothingProves(t *testing.T) {
	p := newProgram(t, 9)
	before := p.onGreen()
	hung := make(chan struct{})
	green := p.gates[1].server.Config
	endpoint := green.Handler
	green.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-hung:
			endpoint.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	})
	p.lose()
	p.launch()
	l, fresh := p.listenAgain("edge-1", before), p.listen("edge-2")
	p.until("a new proxy says that it does not know", func() bool {
		fresh.mu.Lock()
		defer fresh.mu.Unlock()
		return strings.HasPrefix(fresh.nowhere, "503 no state is stored of chat")
	})
	p.until("status says what to do", func() bool {
		s := p.status("chat")
		return s.Live == "" && s.Reason.Code == rollout.Unsettled && strings.Contains(s.Reason.Text, "adopt")
	})
	if _, err := p.api.Promote(t.Context(), "chat", api.Promotion{Target: "blue", Force: true}); refusal(err) != rollout.NotSettled {
		t.Errorf("promote: %v", err)
	}
	if _, heard := l.weight("chat-green"); heard || len(l.lost()) > 0 || fresh.holds(envoy.ClusterType, "chat-blue") {
		t.Errorf("something was published of a service whose live colour nothing proves; removed: %v", l.lost())
	}
	if answer, err := p.api.Adopt(t.Context(), "chat", discovery.Green); err != nil {
		t.Fatalf("adopt: %+v, %v", answer, err)
	}
	close(hung)
	p.until("the new proxy sends to green", func() bool { w, ok := fresh.weight("chat-green"); return ok && w == 10_000 })
	p.until("both hold what is published", func() bool { return p.status("chat").Proxies.Confirmed == 2 })
	if _, heard := l.weight("chat-blue"); heard {
		t.Error("the proxy, which had the right routes, was sent others")
	}
}

// onGreen has green go live and the program stopped. It returns what a proxy then holds.
func (p *program) onGreen() *listening {
	p.t.Helper()
	p.launch()
	l := p.listen("edge-1")
	p.until("the proxy has heard everything", func() bool { return p.status("chat").Proxies.Confirmed == 1 })
	if _, err := p.api.Promote(p.t.Context(), "chat", api.Promotion{Target: "green"}); err != nil {
		p.t.Fatal(err)
	}
	p.until("green is live", func() bool {
		s := p.status("chat")
		return s.Live == discovery.Green && s.Rollout == nil && s.Proxies.Confirmed == 1
	})
	p.stop()
	return l
}

// lose removes everything that is stored.
func (p *program) lose() {
	p.t.Helper()
	if err := os.RemoveAll(filepath.Join(p.dir, "state")); err != nil {
		p.t.Fatal(err)
	}
}
