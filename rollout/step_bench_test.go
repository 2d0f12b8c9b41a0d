package rollout_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// BenchmarkStep is one decision in the middle of the funnel, with fresh counts of
// every instance: the next step is shared out.
func BenchmarkStep(b *testing.B) {
	for _, n := range []int{3, 200, 2000} {
		b.Run(fmt.Sprintf("instances=%d", n), func(b *testing.B) {
			w := midway(b, n)
			seen, now := w.Seen(), w.State().Rollout.StepAt.Add(time.Millisecond)
			for id, sight := range seen.Instances {
				sight.At = now
				seen.Instances[id] = sight
			}
			if d := rollout.Step(w.State(), seen, now); !d.Changed || d.Next.Rollout.Step != w.State().Rollout.Step+1 {
				b.Fatalf("not a step: %+v", d.Reason)
			}
			b.ReportAllocs()
			for b.Loop() {
				rollout.Step(w.State(), seen, now)
			}
		})
	}
}

// BenchmarkWished is the whole map of what should be, derived anew.
func BenchmarkWished(b *testing.B) {
	for _, n := range []int{3, 200, 2000} {
		b.Run(fmt.Sprintf("instances=%d", n), func(b *testing.B) {
			w := midway(b, n)
			seen := w.Seen()
			b.ReportAllocs()
			for b.Loop() {
				rollout.Wished(w.State(), seen, w.Now())
			}
		})
	}
}

// midway is a world of n instances, half of each colour and at least one, in the
// middle of the funnel.
func midway(b *testing.B, n int) world {
	w := newWorld(b, small((n+1)/2, max(1, n/2), 10*n, 2))
	half, every := max(1, n/2), units.Duration(3*time.Second)
	w.Pass(5 * time.Second)
	w.must(rollout.Promote{Service: "chat", Target: discovery.Green, Overrides: policy.Overrides{Close: &half, Every: &every}})
	w.until(time.Minute, func() bool { return w.State().Rollout != nil && w.State().Rollout.Step == 3 })
	return w
}
