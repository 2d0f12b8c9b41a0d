package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
)

// A promotion right after a restart waits for the proxies that are known: none is closed
// while none is connected, and one that does not come back is waited for until an
// operator says that it is gone.
func TestWhoIsLostIsWaitedFor(t *testing.T) {
	p := newProgram(t, 9)
	p.launch()
	p.listen("edge-1")
	p.listen("edge-2")
	p.until("both have heard everything", func() bool { return p.status("chat").Proxies.Confirmed == 2 })
	p.stop()

	p.launch()
	p.until("the promotion is taken", func() bool {
		_, err := p.api.Promote(t.Context(), "chat", api.Promotion{Target: "green"})
		return err == nil
	})
	p.until("it waits for the proxies", func() bool { return p.status("chat").Reason.Code == rollout.NoProxy })
	l := p.listen("edge-1")
	p.until("the lost one is named", func() bool {
		st := p.status("chat")
		return st.Reason.Code == rollout.Unconfirmed && strings.Contains(st.Reason.Text, "proxies forget edge-2")
	})
	if w, _ := l.weight("chat-green"); w != 0 || p.closes() != 0 {
		t.Errorf("green has the weight %d after %d closes", w, p.closes())
	}
	for node, want := range map[string]rollout.Code{"edge-1": rollout.ProxyConnected, "edge-9": rollout.UnknownProxy} {
		if _, err := p.api.Forget(t.Context(), node); refusal(err) != want {
			t.Errorf("forget %s: %v", node, err)
		}
	}
	if _, err := p.api.Forget(t.Context(), "edge-2"); err != nil {
		t.Fatal(err)
	}
	p.until("it is done", func() bool { return p.status("chat").Live == discovery.Green })
	if last := p.status("chat").Last; p.closes() != 9 || len(last.LeftBehind) != 1 {
		t.Errorf("%d closes, left behind %v", p.closes(), last.LeftBehind)
	}
	if code, body := p.get("/v1/proxies/forget", ""); code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d %s", code, body)
	}
}

// A lost proxy that had acknowledged the switch holds nothing up; when the last one goes,
// nothing is closed until one is back.
func TestTheLastProxyGoes(t *testing.T) {
	p := newProgram(t, 30)
	p.configure(strings.Replace(p.chat(1), "1/100ms", "1/300ms", 1))
	p.launch()
	one, two := p.listen("edge-1"), p.listen("edge-2")
	p.until("both have heard everything", func() bool { return p.status("chat").Proxies.Confirmed == 2 })
	if _, err := p.api.Promote(t.Context(), "chat", api.Promotion{Target: "green"}); err != nil {
		t.Fatal(err)
	}
	p.until("the funnel runs", func() bool { return p.closes() > 0 })
	two.leave()
	p.until("the funnel runs on", func() bool { return p.closes() > 2 })
	one.leave()
	p.until("it holds", func() bool { return p.status("chat").Reason.Code == rollout.NoProxy })
	p.until("the instance is told to hold", func() bool { return p.gates[0].Status().Ceiling == nil })
	held := p.closes()
	p.listenAgain("edge-1", one)
	p.until("the funnel runs again", func() bool { return p.closes() > held+2 })
}
