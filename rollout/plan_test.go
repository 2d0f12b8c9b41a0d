package rollout

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// The plan's estimate is right within a tenth for an undisturbed rollout.
func TestPlanIsRight(t *testing.T) {
	for name, change := range map[string]func(*Policy){
		"funnel": func(*Policy) {},
		"canary": func(p *Policy) {
			p.Canary, p.Soak, p.Grace = 500, units.Duration(20*time.Second), units.Duration(10*time.Second)
		},
		"batches": func(p *Policy) {
			p.Stagger = Stagger{Instances: units.Portion{Share: 2500}, Soak: units.Duration(15 * time.Second)}
		},
		"one by one": func(p *Policy) { p.Stagger.Instances.Number = 1 },
		"window":     func(p *Policy) { p.Window = 20 },
		"room":       func(p *Policy) { p.Capacity = 200 },
		"deadline": func(p *Policy) {
			p.Deadline, p.Pressure, p.HurryCap = units.Duration(5*time.Minute), Hurry, 40
		},
	} {
		for _, connections := range []int{97, 200, 431} {
			t.Run(fmt.Sprint(name, " ", connections), func(t *testing.T) {
				w := newWorld(t, 5, 3, connections, 2)
				w.run(3*time.Second, func() bool { return false })
				change(&w.policy)
				plan, err := MakePlan(w.state, w.seen(), discovery.Green, w.policy, w.now)
				if err != nil || len(plan.Problems) > 0 {
					t.Fatal(err, plan.Problems)
				}
				began := w.now
				if err := w.do(Promote{Service: "chat", Target: discovery.Green}); err != nil {
					t.Fatal(err)
				}
				if !w.run(time.Hour, func() bool { return w.held(discovery.Blue) == 0 }) {
					t.Fatalf("not empty: %s", w.reason.Text)
				}
				took := w.now.Sub(began)
				if off := math.Abs(took.Seconds()/plan.Takes.D().Seconds() - 1); off > 0.1 {
					t.Errorf("took %s, planned %s", took, plan.Takes)
				}
			})
		}
	}
}
