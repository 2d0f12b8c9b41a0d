package rollout_test

import (
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// Those that the policy names go first, in its order, though others hold less;
// and every order says which connections go first.
func TestBatchesAndOrdersFollowThePolicy(t *testing.T) {
	w := newWorld(t, small(3, 2, 30, 1))
	w.Fleet.Instance("chat-b0001").End(8)
	w.Policy.Stagger = policy.Stagger{Instances: units.Portion{Number: 1}, First: []string{"chat-b0003", "chat-b0002"}}
	w.Policy.Order = contract.Oldest
	w.Pass(3 * time.Second)
	w.must(rollout.Promote{Service: "chat", Target: discovery.Green})
	w.until(time.Minute, func() bool { return w.Fleet.Held(discovery.Blue) == 0 })
	for id, turn := range map[discovery.InstanceID]int{"chat-b0003": 1, "chat-b0002": 2, "chat-b0001": 3} {
		if got := w.State().Members[id].Turn; got != turn {
			t.Errorf("%s drained in batch %d, want %d", id, got, turn)
		}
		if got := w.Fleet.Instance(string(id)).Pick(); got != contract.Oldest {
			t.Errorf("%s was told to let %q go first", id, got)
		}
	}
}
