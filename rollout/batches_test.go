package rollout

import (
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// Those that the policy names go first, in its order, though others hold less;
// and every order says which connections go first.
func TestBatchesAndOrdersFollowThePolicy(t *testing.T) {
	w := newWorld(t, 3, 2, 30, 1)
	w.instances["chat-b0001"].status.Active = 2
	w.policy.Stagger = Stagger{Instances: units.Portion{Number: 1}, First: []string{"chat-b0003", "chat-b0002"}}
	w.policy.Order = drain.Oldest
	w.run(3*time.Second, func() bool { return false })
	if err := w.do(Promote{Service: "chat", Target: discovery.Green}); err != nil {
		t.Fatal(err)
	}
	if !w.run(time.Minute, func() bool { return w.held(discovery.Blue) == 0 }) {
		t.Fatalf("not empty: %s", w.reason.Text)
	}
	for id, turn := range map[discovery.InstanceID]int{"chat-b0003": 1, "chat-b0002": 2, "chat-b0001": 3} {
		if got := w.state.Members[id].Turn; got != turn {
			t.Errorf("%s drained in batch %d, want %d", id, got, turn)
		}
		if got := w.instances[id].lastOrder.Pick; got != drain.Oldest {
			t.Errorf("%s was told to let %q go first", id, got)
		}
	}
}
