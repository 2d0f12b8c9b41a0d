//go:build real

package rolloutd_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	consul "github.com/hashicorp/consul/api"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// TestRealConsul registers instances in Consul, which also keeps the state, and
// promotes; rolloutd is killed on the way and Consul's agent restarted.
func TestRealConsul(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	agent := startConsul(t, data)
	where := "{consul: {address: " + agent.HTTP.String() + "}}"
	w := start(t, plan{chats: 2, policy: halfPolicy, discovery: where, state: where})
	w.register(agent.HTTP, discovery.Blue)
	e := w.startEnvoy("edge-1", w.ctl.XDS)
	c := w.gather(40)
	c.on(chat, discovery.Blue)
	c.on(line, discovery.Blue)
	w.register(agent.HTTP, discovery.Green)
	w.until("the green endpoints to reach Envoy", func() error { return e.knows(w, w.instances[chat]) })

	began := time.Now()
	id, other := w.promote(chat, api.Promotion{Target: "green"}), w.promote(line, api.Promotion{Target: "green"})
	w.await(chat, "the first evictions", func(st api.Status) bool { return st.Rollout != nil && st.Rollout.Evicted > 0 })
	w.ctl.Kill()
	w.must(w.ctl.Start(w.ctx))
	if st := w.await(chat, "its state", func(st api.Status) bool { return st.Rollout != nil }); st.Rollout.ID != id {
		t.Errorf("after the restart there is rollout %s; it was %s", st.Rollout.ID, id)
	}

	// The same agent with the same data: the rollout waits for it.
	before := w.await(chat, "its evictions", func(st api.Status) bool { return st.Rollout != nil && st.Phase == state.Draining }).Rollout.Evicted
	agent.Kill()
	w.await(chat, "it to wait", func(st api.Status) bool {
		return st.Reason.Code == rollout.StaleDiscovery || st.Reason.Code == rollout.StoreFailing
	})
	c.works()
	again, err := fleet.StartConsulAt(w.ctx, agent.HTTP, data)
	w.must(err)
	t.Cleanup(again.Kill)
	w.register(agent.HTTP, discovery.Blue)
	w.register(agent.HTTP, discovery.Green)
	c.on(chat, discovery.Green)
	c.on(line, discovery.Green)
	r := w.done(chat, id)
	if r.Evicted <= before {
		t.Errorf("%d were evicted, and %d before Consul was stopped", r.Evicted, before)
	}
	c.kept(chat, began, half, r)
	c.kept(line, began, half, w.done(line, other))
}

// TestRealConsulEmpty: Consul is killed in the middle of a rollout and started
// again with nothing in it, the state included. Envoy keeps what it has, and the
// rollout waits until the instances are registered again.
func TestRealConsulEmpty(t *testing.T) {
	t.Parallel()
	agent := startConsul(t, t.TempDir())
	where := "{consul: {address: " + agent.HTTP.String() + "}}"
	w := start(t, plan{chats: 2, policy: halfPolicy, discovery: where, state: where})
	w.register(agent.HTTP, discovery.Blue)
	w.register(agent.HTTP, discovery.Green)
	e := w.startEnvoy("edge-1", w.ctl.XDS)
	c := w.gather(40)
	c.on(chat, discovery.Blue)
	c.on(line, discovery.Blue)

	began := time.Now()
	id := w.promote(chat, api.Promotion{Target: "green"})
	w.await(chat, "the first evictions", func(st api.Status) bool { return st.Rollout != nil && st.Rollout.Evicted > 0 })
	agent.Kill()
	// Counts that came after the last state was stored wait for the store first.
	w.await(chat, "it to see that Consul is gone", func(st api.Status) bool {
		return st.Discovery.Error != "" && (st.Reason.Code == rollout.StaleDiscovery || st.Reason.Code == rollout.StoreFailing)
	})
	empty, err := fleet.StartConsulAt(w.ctx, agent.HTTP, t.TempDir())
	w.must(err)
	t.Cleanup(empty.Kill)
	w.await(chat, "it not to believe the empty catalogue", func(st api.Status) bool {
		return st.Reason.Code == rollout.StaleDiscovery && st.Discovery.Error == "" && strings.Contains(st.Discovery.Suspect, "lists no instance of chat")
	})
	stopped := time.Now()
	w.must(e.knows(w, w.instances[chat]))
	w.must(e.knows(w, w.instances[line]))
	c.works()
	for range 10 {
		if h, err := w.socket(w.ctx); err != nil || h.Colour != "green" {
			t.Errorf("a new connection went to %+v, %v", h, err)
		}
	}
	c.quiet(chat, 3*half.Every.D())
	if n := len(c.left(chat, stopped.Add(half.Every.D()))); n > 0 {
		t.Errorf("%d were disconnected while Consul was empty", n)
	}

	w.register(agent.HTTP, discovery.Blue)
	w.register(agent.HTTP, discovery.Green)
	w.await(chat, "it to go on", func(st api.Status) bool { return st.Reason.Code == rollout.IsDraining })
	w.ctl.Kill()
	w.must(w.ctl.Start(w.ctx))
	c.on(chat, discovery.Green)
	r := w.done(chat, id)
	if r.Outcome != state.Done {
		t.Errorf("%s ended %s", id, r.Outcome)
	}
	c.kept(chat, began, half, r)
}

func startConsul(t *testing.T, dir string) *fleet.Consul {
	t.Helper()
	agent, err := fleet.StartConsul(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(agent.Kill)
	return agent
}

// register puts the world's instances of one colour into a Consul, as their
// authors would.
func (w *world) register(at netip.AddrPort, colour discovery.Colour) {
	w.t.Helper()
	client, err := consul.NewClient(&consul.Config{Address: at.String()})
	w.must(err)
	for service, all := range w.instances {
		for _, in := range all {
			if in.Colour != colour {
				continue
			}
			addr := netip.MustParseAddrPort(in.Address)
			w.must(client.Agent().ServiceRegister(&consul.AgentServiceRegistration{
				ID: string(in.ID), Name: string(service), Tags: []string{string(colour)},
				Address: addr.Addr().String(), Port: int(addr.Port()),
				Meta: map[string]string{"drain": in.Drain, "version": in.Version},
			}))
		}
	}
}

// knows reports an instance that is missing from Envoy's own endpoints.
func (e *realEnvoy) knows(w *world, all []fleet.Instance) error {
	w.t.Helper()
	dump := w.page(e.admin, "/clusters")
	for _, in := range all {
		if !strings.Contains(dump, "::"+in.Address+"::") {
			return fmt.Errorf("%s is not among Envoy's endpoints:\n%s", in.ID, dump)
		}
	}
	return nil
}
