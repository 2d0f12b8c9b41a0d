//go:build real

package rolloutd_test

import (
	"os"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// TestRealHotRestart: an Envoy is restarted hot, and the old process keeps the connections,
// to instances that nobody can ask. The new one's counters do not prove that there are none,
// until its parent has ended: then they prove that, too.
func TestRealHotRestart(t *testing.T) {
	t.Parallel()
	w := start(t, plan{policy: halfPolicy})
	for _, c := range discovery.Colours {
		p, err := fleet.StartChat(w.ctx, fleet.ChatOptions{Bin: programs(t), Dir: w.dir, Name: discovery.InstanceID("chat-" + string(c)), Colour: c, WithoutDrain: true})
		w.must(err)
		t.Cleanup(p.Kill)
		w.instances[chat] = append(w.instances[chat], p.Instance)
	}
	w.must(w.ctl.WriteInstances(w.instances))
	edge := fleet.EnvoyOptions{Node: "edge-1", XDS: w.ctl.XDS, Dir: t.TempDir(), BaseID: 1 + os.Getpid()}
	parent := w.startEdge(edge)
	w.await(chat, "the instances", func(st api.Status) bool {
		return w.colour(st, discovery.Blue).Healthy == 1 && w.colour(st, discovery.Green).Healthy == 1 && st.Proxies.Confirmed == 1
	})
	_, end := w.sockets(w.web, 40)
	w.counted(chat, discovery.Blue, 40)

	edge.Dir, edge.Epoch = t.TempDir(), 1
	w.startEdge(edge)
	w.await(chat, "two generations", func(st api.Status) bool { return st.Proxies.Connected == 2 && st.Proxies.Confirmed == 2 })
	id := w.promote(chat, api.Promotion{Target: "green"})
	// The promotion gets as far as it can, and the new process has reported many times.
	w.awaitPhase(chat, state.Draining)
	for since := time.Now(); time.Since(since) < 8*time.Second; {
		st, err := w.api.Service(w.ctx, chat)
		w.must(err)
		if st.Rollout == nil || st.Rollout.ID != id {
			t.Fatalf("blue is taken for empty while 40 are connected to it: %+v", st.Last)
		}
	}
	end()
	w.done(chat, id)

	// The old process ends. Nobody has to say so: the new one does.
	parent.Kill()
	w.await(chat, "the end of the old process", func(st api.Status) bool { return st.Proxies.Connected == 1 })
	w.done(chat, w.promote(chat, api.Promotion{Target: "blue"}))
}
