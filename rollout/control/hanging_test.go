package control

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// An instance of the target that hangs is sick, whatever its connections do: nothing
// more is closed until it answers.
func TestHangingTargetStopsTheFunnel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 2, 2, 60)
		r.start()
		r.do(promoteGreen)
		r.until("at step 1", func(v rollout.View) bool { return v.State.Rollout != nil && v.State.Rollout.Step == 1 })
		g2 := r.house("g2")
		r.set(func() { g2.hanging = true })
		began := time.Now()
		r.untilCode(rollout.TargetSick)
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("it is noticed after %v, want two requests of 2 s", took)
		}
		time.Sleep(100 * time.Millisecond) // the order to hold
		held := r.house("b1").Status().Active + r.house("b2").Status().Active
		time.Sleep(20 * time.Second)
		if now := r.house("b1").Status().Active + r.house("b2").Status().Active; now != held || held == 0 {
			t.Errorf("blue held %d when green was found to hang, and %d later", held, now)
		}
		r.set(func() { g2.hanging = false })
		r.untilPhase(state.Steady)
		r.once(60)
	})
}
