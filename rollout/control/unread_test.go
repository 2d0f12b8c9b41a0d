package control

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// A service that cannot be read is nobody else's affair: what is known is published,
// nothing is stored of it, and it begins when it is read.
func TestAServiceThatIsNeverRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 2, 2, 20)
		r.run()
		r.configure("chat", "pay")
		unread := discovery.Fleet{Unread: "Consul cannot be read: the token may not see pay"}
		r.control.Discovered(discovery.Snapshot{"chat": r.fleet, "pay": unread})
		time.Sleep(5 * time.Second)
		views, _ := r.control.Views()
		_, wishes := r.published()
		if err := r.control.Ready(); err != nil || len(wishes) != 2 || views["pay"].Reason.Code != rollout.Unread {
			t.Fatalf("ready: %v, %d wishes, pay: %+v", err, len(wishes), views["pay"].Reason)
		}
		for c, endpoints := range wishes["pay"].Endpoints {
			if len(endpoints) > 0 {
				t.Errorf("%s of pay has endpoints: %v", c, endpoints)
			}
		}
		if _, err := r.control.Do(t.Context(), rollout.Promote{Service: "pay", Target: discovery.Green}); err == nil || !strings.Contains(err.Error(), unread.Unread) {
			t.Errorf("promote pay: %v", err)
		}
		r.do(promoteGreen)
		r.untilPhase(state.Steady)
		if all, _ := r.shelf.Load(t.Context()); len(all) != 1 {
			t.Errorf("%d states are stored, one service was read", len(all))
		}

		// Once read it goes on from what is stored, even in a process that cannot read it.
		r.control.Discovered(discovery.Snapshot{"chat": r.fleet, "pay": {Instances: []discovery.Instance{{
			ID: "p1", Colour: discovery.Blue, Addr: netip.MustParseAddrPort("10.3.0.1:9000"), Health: discovery.Passing,
		}}}})
		time.Sleep(time.Second)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		r.run()
		r.configure("chat", "pay")
		r.control.Discovered(discovery.Snapshot{"chat": r.fleet, "pay": unread})
		time.Sleep(5 * time.Second)
		_, wishes = r.published()
		if open := wishes["pay"].Endpoints[discovery.Blue]; len(open) != 1 || open[0].Draining {
			t.Errorf("blue of pay: %+v", open)
		}
	})
}
