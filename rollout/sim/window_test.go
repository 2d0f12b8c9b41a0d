package sim

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
)

// TestWindow holds the truth against the window in every air: how long clients
// take to return, how many never do, how many come by themselves with a rate that
// drifts by a fifth, and a green that refuses everyone in the middle. What is
// outstanding in truth stays within the window where returns are told, and within
// 1.2 windows where they are estimated.
func TestWindow(t *testing.T) {
	at := func(d time.Duration) func(*rand.Rand) time.Duration {
		return func(*rand.Rand) time.Duration { return d }
	}
	backs := map[string]func(*rand.Rand) time.Duration{
		"at once": at(0), "exp 1s": exponential(time.Second), "exp 5s": exponential(5 * time.Second),
		"exp 20s": exponential(20 * time.Second), "uniform 20s": uniform(20 * time.Second),
	}
	worst := map[bool]float64{}
	for back, delay := range backs {
		for _, never := range []float64{0, 0.05, 0.2} {
			for _, organic := range []float64{10, 100, 500} {
				for _, refuses := range []time.Duration{0, time.Minute, 200 * time.Second} {
					for _, unclear := range []bool{false, true} {
						if testing.Short() && organic != 100 {
							continue
						}
						name := fmt.Sprintf("%s, %.0f%% lost, %.0f/s, refuses %s, estimated %t", back, 100*never, organic, refuses, unclear)
						s := Scenario{Name: name, Live: discovery.Green, conf: func(size Size) Config {
							c := base(size)
							c.Policy.Funnel.Close, c.Policy.Window = 1000, 3000
							c.Policy.ReturnTimeout = rollout.Duration(2 * time.Minute)
							c.Back, c.Never, c.Organic, c.Drift, c.Unclear = delay, never, organic, 5*time.Minute, unclear
							return c
						}, play: func(w *World) {
							if refuses > 0 {
								w.half(func() {
									w.trouble()
									w.sulk = 1
									w.after(refuses, func() { w.sulk = 0 })
								})
							}
						}}
						r := s.Run(Size{Connections: 30_000, Instances: 6})
						for _, f := range r.Faults {
							t.Errorf("%s: %s", name, f)
						}
						worst[unclear] = max(worst[unclear], float64(r.Out)/3000)
					}
				}
			}
		}
	}
	t.Logf("the most on their way at once: %.2f windows where returns are told, %.2f where they are estimated", worst[false], worst[true])
}
