package rollout

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/spread"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// The promise of the pace on the real Step: the closes of a whole fleet come at
// even distances, whatever its size. The bounds are the issue's; measured peaks
// are far from what instances with one common offset give (30 times the mean).
func TestFleetClosesEvenly(t *testing.T) {
	fleets := []int{3, 200, 2000}
	if testing.Short() { // the run under the race detector; the full one has them all
		fleets = fleets[:2]
	}
	for _, fleet := range fleets {
		t.Run(fmt.Sprintf("%d instances", fleet), func(t *testing.T) {
			w := newWorld(t, fleet, fleet, 20*1000, 2)
			one, every := 1000, units.Duration(3*time.Second)
			promote := Promote{Service: "chat", Target: discovery.Green, Overrides: Overrides{Close: &one, Every: &every}}
			w.run(5*time.Second, func() bool { return w.now.Sub(epoch) >= 4*time.Second })
			began := w.now
			if err := w.do(promote); err != nil {
				t.Fatal(err)
			}
			if !w.run(5*time.Minute, w.steady) {
				t.Fatalf("not done after 5 minutes: %s", w.reason.Text)
			}
			if len(w.evictions) != 20_000 || w.held(discovery.Blue) != 0 {
				t.Fatalf("%d evictions, blue holds %d", len(w.evictions), w.held(discovery.Blue))
			}
			for _, c := range []struct {
				window time.Duration
				most   float64
			}{{100 * time.Millisecond, 1.2}, {time.Second, 1.05}, {3 * time.Second, 1.01}} {
				mean := 1000 * c.window.Seconds() / 3
				got := float64(peak(w.evictions, c.window)) / mean
				t.Logf("%v: %.3f of the even share", c.window, got)
				if got > c.most {
					t.Errorf("in %v: %.3f times the even share, want at most %.2f", c.window, got, c.most)
				}
			}
			takes := w.evictions[len(w.evictions)-1].at.Sub(began)
			plan := settle + spread.Finish(units.Funnel{Close: 1000, Every: every}, 20_000)
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
	w := newWorld(t, 40, 40, 0, 2)
	held := 0
	for i, in := range w.inOrder(discovery.Blue) {
		in.status.Active, in.status.Accepted = 300+5*i, uint64(300+5*i)
		held += in.status.Active
	}
	w.run(5*time.Second, func() bool { return false })
	began, f := w.now, units.Funnel{Close: held / 60, Every: units.Duration(3 * time.Second)}
	if err := w.do(Promote{Service: "chat", Target: discovery.Green, Overrides: Overrides{Close: &f.Close, Every: &f.Every}}); err != nil {
		t.Fatal(err)
	}
	if !w.run(20*time.Minute, w.steady) {
		t.Fatalf("not done after 20 minutes: %s", w.reason.Text)
	}
	// With room for closes that come a few milliseconds early or late.
	if got := peak(w.evictions, 3*time.Second+8*time.Millisecond); got > f.Close+1 {
		t.Errorf("%d closes in 3 s, the cap is %d", got, f.Close)
	}
	takes, plan := w.evictions[len(w.evictions)-1].at.Sub(began), settle+spread.Finish(f, held)
	if takes > plan*105/100 {
		t.Errorf("took %v, planned %v", takes, plan)
	}
}

func (w *world) inOrder(c discovery.Colour) []*instance {
	var all []*instance
	for _, in := range w.instances {
		if in.Colour == c {
			all = append(all, in)
		}
	}
	slices.SortFunc(all, func(a, b *instance) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return all
}
