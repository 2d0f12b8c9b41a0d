package rollout

import (
	"fmt"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// BenchmarkStep is one decision in the middle of the funnel, with fresh counts of
// every instance: the next step is shared out.
func BenchmarkStep(b *testing.B) {
	for _, n := range []int{3, 200, 2000} {
		b.Run(fmt.Sprintf("instances=%d", n), func(b *testing.B) {
			w := midway(b, n)
			seen, now := w.seen(), w.state.Rollout.StepAt.Add(time.Millisecond)
			for id, sight := range seen.Instances {
				sight.At = now
				seen.Instances[id] = sight
			}
			if d := Step(w.state, seen, now); !d.Changed || d.Next.Rollout.Step != w.state.Rollout.Step+1 {
				b.Fatalf("not a step: %+v", d.Reason)
			}
			b.ReportAllocs()
			for b.Loop() {
				Step(w.state, seen, now)
			}
		})
	}
}

// BenchmarkWished is the whole map of what should be, derived anew.
func BenchmarkWished(b *testing.B) {
	for _, n := range []int{3, 200, 2000} {
		b.Run(fmt.Sprintf("instances=%d", n), func(b *testing.B) {
			w := midway(b, n)
			seen := w.seen()
			b.ReportAllocs()
			for b.Loop() {
				Wished(w.state, seen)
			}
		})
	}
}

// midway is a world of n instances, half of each colour and at least one, in the
// middle of the funnel.
func midway(b *testing.B, n int) *world {
	w := newWorld(b, (n+1)/2, max(1, n/2), 10*n, 2)
	half, every := max(1, n/2), units.Duration(3*time.Second)
	w.run(5*time.Second, func() bool { return false })
	if err := w.do(Promote{Service: "chat", Target: discovery.Green, Overrides: Overrides{Close: &half, Every: &every}}); err != nil {
		b.Fatal(err)
	}
	w.run(time.Minute, func() bool { return w.state.Rollout != nil && w.state.Rollout.Step == 3 })
	return w
}
