package main

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// The main job: start, promote, watch, done, and back after a restart.
func TestPromoteThroughTheWholeProgram(t *testing.T) {
	p := newProgram(t, 9)
	p.launch()
	l := p.listen("edge-1")
	p.until("the proxy has heard everything", func() bool { return p.status("chat").Proxies.Confirmed == 1 })
	if w, ok := l.weight("chat-blue"); !ok || w != 10_000 {
		t.Errorf("blue has the weight %d", w)
	}
	answer, err := p.api.Promote(t.Context(), "chat", api.Promotion{Target: "green"})
	if err != nil || answer.Rollout != "chat-1" {
		t.Fatalf("promote: %+v, %v", answer, err)
	}
	if _, err := p.api.Promote(t.Context(), "chat", api.Promotion{Target: "green"}); refusal(err) != rollout.InProgress {
		t.Errorf("a second promote: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	phases := map[state.Phase]bool{}
	var last api.Status
	for w, err := range p.api.Watch(ctx, "chat") {
		if err != nil {
			t.Fatal(err)
		}
		last = w.Services[0]
		phases[last.Phase] = true
		if last.Last != nil {
			break
		}
	}
	if last.Live != discovery.Green || last.Last.Evicted != 9 || *last.Last.Returned != 9 || !phases[state.Draining] {
		t.Errorf("%+v, phases %v", last.Last, phases)
	}
	if w, _ := l.weight("chat-green"); w != 10_000 || p.closes() != 9 || p.gates[1].Status().Active != 9 {
		t.Errorf("green has the weight %d, %d closes, green holds %d", w, p.closes(), p.gates[1].Status().Active)
	}
	for _, path := range []string{"/healthz", "/metrics", "/v1/version"} {
		if code, body := p.get(path, ""); code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if code := p.stop(); code != 0 {
		t.Errorf("asked to stop, it ended with %d", code)
	}

	// It remembers. The undo is a promotion like any other.
	p.launch()
	if st := p.status("chat"); st.Live != discovery.Green || st.Last == nil {
		t.Errorf("after a restart: live %s, last %+v", st.Live, st.Last)
	}
	p.listen("edge-1")
	p.until("the proxy is back", func() bool { return p.status("chat").Proxies.Confirmed == 1 })
	if _, err := p.api.Promote(t.Context(), "chat", api.Promotion{Target: "blue"}); err != nil {
		t.Fatal(err)
	}
	p.until("back on blue", func() bool { return p.status("chat").Live == discovery.Blue })
	if p.closes() != 18 {
		t.Errorf("%d closes there and back, want 18", p.closes())
	}
}

func refusal(err error) rollout.Code {
	if no, ok := errors.AsType[*rollout.Refusal](err); ok {
		return no.Code
	}
	return ""
}

func TestReload(t *testing.T) {
	p := newProgram(t, 3)
	p.launch()
	l := p.listen("edge-1")
	p.until("the proxy has heard everything", func() bool { return p.status("chat").Proxies.Confirmed == 1 })
	good := p.read("sluice.yaml")

	p.edit("funnel: 3/100ms", "funnel: 7/200ms")
	p.reload("service chat has a new policy, for its next rollout")
	p.until("the new policy", func() bool { return p.status("chat").Policy.Funnel.Close == 7 })

	// A new service joins; what the proxy has is not touched.
	p.write("instances.yaml", p.instances("chat", "feed"))
	p.configure(p.chat(7) + "  - {name: feed, domains: [feed.example.com]}\n")
	p.reload("service feed is new")
	p.until("the proxy has heard of it", func() bool {
		st, err := p.api.Service(t.Context(), "feed")
		return err == nil && st.Proxies.Confirmed == 1 && l.holds(envoy.EndpointType, "feed-green")
	})

	// What cannot change is refused as a whole, with the reason.
	for _, c := range []struct{ old, with, reason string }{
		{"address: " + p.web.String(), "address: " + freePort(t).String(), "listener web has another address, which would end its connections; put it back"},
		{"listen: " + p.xds.String(), "listen: " + freePort(t).String(), "changed, but the Envoys are connected to it; restart rolloutd for that"},
		{"listen: " + strings.TrimPrefix(p.base, "http://"), "listen: " + freePort(t).String(), "changed, but it is being served; restart rolloutd for that"},
		{"state: {file: state}", "state: {file: other}", "changed, but a rollout would lose its memory"},
		{"name: chat", "nam: chat", `nam`},
		{"name: chat", "name: chat, domains: ['chat.example.com:8080']", `services[0].domains[0]: leave the port out of \"chat.example.com:8080\"; any port matches`},
	} {
		running := p.read("sluice.yaml")
		p.edit(c.old, c.with)
		p.edit("7/100ms", "9/100ms")
		p.reload("reload refused")
		p.until(c.reason, func() bool { return strings.Contains(p.said.String(), c.reason) })
		if got := p.status("chat").Policy.Funnel.Close; got != 7 {
			t.Errorf("%s: refused, but the policy is %d", c.with, got)
		}
		p.write("sluice.yaml", running)
	}

	// A service that leaves retires; put back it goes on.
	p.write("sluice.yaml", good)
	p.reload("service feed retires")
	p.until("feed is gone", func() bool {
		st, err := p.api.Service(t.Context(), "feed")
		return err == nil && st.Retired
	})
	if st := p.status("chat"); st.Proxies.Unpublished != "" || len(l.lost()) > 0 {
		t.Errorf("chat: %+v, removed %v", st.Proxies, l.lost())
	}
	if p.closes() > 0 {
		t.Errorf("%d connections were closed", p.closes())
	}
}

func TestServiceInRolloutCannotBeRemoved(t *testing.T) {
	p := newProgram(t, 9)
	p.write("instances.yaml", p.instances("chat", "feed"))
	feed := "  - {name: feed, domains: [feed.example.com]}\n"
	p.configure(p.chat(1) + feed)
	p.launch()
	p.listen("edge-1")
	p.until("the proxy has heard everything", func() bool { return p.status("chat").Proxies.Confirmed == 1 })
	if _, err := p.api.Promote(t.Context(), "chat", api.Promotion{Target: "green"}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.api.Pause(t.Context(), "chat"); err != nil {
		t.Fatal(err)
	}
	p.configure(feed)
	p.reload("service chat cannot be removed while rollout chat-1 is")
	if st := p.status("chat"); st.Retired || st.Rollout == nil {
		t.Errorf("retired in the middle of a rollout: %+v", st)
	}
	if _, err := p.api.Abort(t.Context(), "chat"); err != nil {
		t.Fatal(err)
	}
	p.until("aborted", func() bool { return p.status("chat").Rollout == nil })
	p.reload("service chat retires")
	p.until("retired", func() bool { return p.status("chat").Retired })
}
