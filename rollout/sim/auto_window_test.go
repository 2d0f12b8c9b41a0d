package sim

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// TestAutoWindow: the automatic window costs nothing where clients return, whoever tells
// of them, but the wait for the first of those that take longer than five steps; and
// where nobody comes from some moment on, on their way are at most five caps, or twice
// as many as are let go in the 99th percentile of return times, and some steps.
func TestAutoWindow(t *testing.T) {
	const cap = 1000
	for _, back := range backs {
		for _, never := range []float64{0, 0.2} {
			for _, organic := range []float64{0, 100} {
				for _, tells := range []Tells{Returns, Nothing} {
					if testing.Short() && organic > 0 {
						continue
					}
					name := fmt.Sprintf("%s, %.0f%% lost, %.0f/s, %s", back.name, 100*never, organic, words[tells])
					run := func(window units.Window, play func(*World), back func(*rand.Rand) time.Duration) Report {
						s := Scenario{Live: discovery.Green, Within: 3 * time.Hour, play: play, conf: func(size Size) Config {
							c := base(size)
							c.Policy.Funnel.Close, c.Policy.Window = cap, window
							c.Back, c.Never, c.Organic, c.Tells = back, never, organic, tells
							return c
						}}
						return s.Run(Size{Connections: 30_000, Instances: 6})
					}
					without, with := run(units.NoWindow, nil, back.of), run(units.Auto, nil, back.of)
					if most := without.Took + back.mean; with.Took > most {
						t.Errorf("%s: took %v, want at most %v", name, with.Took, most)
					}
					if never > 0 {
						continue // so many never return
					}
					frozen := false
					stuck := run(units.Auto, func(w *World) {
						w.half(func() {
							frozen, w.conf.Organic = true, 0
							w.after(time.Minute, func() { frozen, w.conf.Organic = false, organic })
						})
					}, func(r *rand.Rand) time.Duration {
						if frozen {
							return time.Minute + back.of(r)
						}
						return back.of(r)
					})
					// 99 of 100 are back after 4.6 means of an exponential time. What came by itself
					// lately may have been those whose going was not told yet.
					slow := 4.6 * back.mean.Seconds() / every.Seconds() * cap
					if most := max(5*cap, int(2*slow)) + 3*cap + int(6*organic); stuck.Out > most {
						t.Errorf("%s: %d were on their way when nobody came, want at most %d", name, stuck.Out, most)
					}
					for _, f := range append(with.Faults, stuck.Faults...) {
						t.Errorf("%s: %s", name, f)
					}
				}
			}
		}
	}
}

// TestAutoWindowWhereAPartStaysAway: where a third of those that are let go do not come back
// from some moment on, as behind one frozen Envoy of three, the automatic window holds as it
// does where nobody comes, if those that come back are counted: who does not come is not slow.
func TestAutoWindowWhereAPartStaysAway(t *testing.T) {
	const cap = 1000
	for _, back := range backs[:3] {
		frozen := false
		s := Scenario{Live: discovery.Green, Within: 3 * time.Hour, play: func(w *World) {
			w.half(func() {
				frozen = true
				w.after(3*time.Minute, func() { frozen = false })
			})
		}, conf: func(size Size) Config {
			c := base(size)
			c.Policy.Funnel.Close, c.Policy.Window, c.Tells = cap, units.Auto, Tickets
			c.Policy.ReturnTimeout = units.Duration(10 * time.Minute)
			c.Back = func(r *rand.Rand) time.Duration {
				if frozen && r.IntN(3) == 0 {
					return 3*time.Minute + back.of(r)
				}
				return back.of(r)
			}
			return c
		}}
		r := s.Run(Size{Connections: 60_000, Instances: 6})
		slow := 4.6 * back.mean.Seconds() / every.Seconds() * cap
		if most := max(5*cap, int(2*slow)) + 2*cap; r.Out > most {
			t.Errorf("%s: %d were on their way when a third stayed away, want at most %d", back.name, r.Out, most)
		}
		for _, f := range r.Faults {
			t.Errorf("%s: %s", back.name, f)
		}
	}
}
