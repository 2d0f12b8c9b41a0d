package rollout_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// The plan's estimate is right within a tenth for an undisturbed rollout.
func TestPlanIsRight(t *testing.T) {
	for name, change := range map[string]func(*policy.Policy){
		"funnel": func(*policy.Policy) {},
		"canary": func(p *policy.Policy) {
			p.Canary, p.Soak, p.Grace = 500, units.Duration(20*time.Second), units.Duration(10*time.Second)
		},
		"batches": func(p *policy.Policy) {
			p.Stagger = policy.Stagger{Instances: units.Portion{Share: 2500}, Soak: units.Duration(15 * time.Second)}
		},
		"one by one": func(p *policy.Policy) { p.Stagger.Instances.Number = 1 },
		"window":     func(p *policy.Policy) { p.Window = 20 },
		"room":       func(p *policy.Policy) { p.Capacity = 200 },
		"deadline": func(p *policy.Policy) {
			p.Deadline, p.Pressure, p.HurryCap = units.Duration(5*time.Minute), policy.Hurry, 40
		},
	} {
		for _, connections := range []int{97, 200, 431} {
			t.Run(fmt.Sprint(name, " ", connections), func(t *testing.T) {
				w := newWorld(t, small(5, 3, connections, 2))
				w.Pass(3 * time.Second)
				change(&w.Policy)
				plan, err := rollout.MakePlan(w.State(), w.Seen(), discovery.Green, w.Policy, w.Now())
				if err != nil || len(plan.Problems) > 0 {
					t.Fatal(err, plan.Problems)
				}
				began := w.Now()
				w.must(rollout.Promote{Service: "chat", Target: discovery.Green})
				w.until(time.Hour, func() bool { return w.Fleet.Held(discovery.Blue) == 0 })
				took := w.Now().Sub(began)
				if off := math.Abs(took.Seconds()/plan.Takes.D().Seconds() - 1); off > 0.1 {
					t.Errorf("took %s, planned %s", took, plan.Takes)
				}
			})
		}
	}
}
