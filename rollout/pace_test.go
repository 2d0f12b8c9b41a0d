package rollout_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/spread"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// settle is how long handshakes may still be under way after the last proxy confirmed.
const settle = 500 * time.Millisecond

// The promise of the pace on the real Step: the closes of a whole fleet come at
// even distances, whatever its size. The bounds are the issue's; measured peaks
// are far from what instances with one common offset give (30 times the mean).
func TestFleetClosesEvenly(t *testing.T) {
	fleets := []struct{ instances, connections int }{{3, 20_000}, {200, 20_000}, {2000, 6_000}}
	if testing.Short() { // 2,000 take a quarter of a minute
		fleets = fleets[:2]
	}
	for _, fleet := range fleets {
		t.Run(fmt.Sprintf("%d instances", fleet.instances), func(t *testing.T) {
			w := newWorld(t, small(fleet.instances, fleet.instances, fleet.connections, 2))
			one, every := 1000, units.Duration(3*time.Second)
			w.Pass(4 * time.Second)
			began := w.Now()
			w.must(rollout.Promote{Service: "chat", Target: discovery.Green, Overrides: policy.Overrides{Close: &one, Every: &every}})
			w.until(5*time.Minute, w.Steady)
			closes := w.Closes()
			if len(closes) != fleet.connections || w.Fleet.Held(discovery.Blue) != 0 {
				t.Fatalf("%d closes, blue holds %d", len(closes), w.Fleet.Held(discovery.Blue))
			}
			for _, c := range []struct {
				window time.Duration
				most   float64
			}{{100 * time.Millisecond, 1.2}, {time.Second, 1.05}, {3 * time.Second, 1.01}} {
				mean := 1000 * c.window.Seconds() / 3
				got := float64(w.Peak(c.window)) / mean
				t.Logf("%v: %.3f of the even share", c.window, got)
				if got > c.most {
					t.Errorf("in %v: %.3f times the even share, want at most %.2f", c.window, got, c.most)
				}
			}
			takes := closes[len(closes)-1].At.Sub(began)
			plan := settle + spread.Finish(units.Funnel{Close: 1000, Every: every}, fleet.connections)
			if diff := takes.Seconds()/plan.Seconds() - 1; diff > 0.1 || diff < -0.1 {
				t.Errorf("took %v, planned %v", takes, plan)
			}
		})
	}
}

// An instance that holds more than another closes in another rhythm, and the next
// step is delayed a little so that no window has more than the cap. Delays do not
// add up: it takes as long as planned.
func TestUnevenFleetTakesAsLongAsPlanned(t *testing.T) {
	w := newWorld(t, small(40, 40, 0, 2))
	held := 0
	for i, in := range w.Fleet.Colour(discovery.Blue) {
		in.Admit(300 + 5*i)
		held += in.Holds()
	}
	w.Pass(5 * time.Second)
	began, f := w.Now(), units.Funnel{Close: held / 60, Every: units.Duration(3 * time.Second)}
	w.must(rollout.Promote{Service: "chat", Target: discovery.Green, Overrides: policy.Overrides{Close: &f.Close, Every: &f.Every}})
	w.until(20*time.Minute, w.Steady)
	// With room for closes that come a few milliseconds early or late.
	if got := w.Peak(3*time.Second + 8*time.Millisecond); got > f.Close+1 {
		t.Errorf("%d closes in 3 s, the cap is %d", got, f.Close)
	}
	closes := w.Closes()
	takes, plan := closes[len(closes)-1].At.Sub(began), settle+spread.Finish(f, held)
	if takes > plan*105/100 {
		t.Errorf("took %v, planned %v", takes, plan)
	}
}
