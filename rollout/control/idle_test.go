package control

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
)

// asked is how often each instance is asked in a while, the least and the most.
func (r *rig) asked(while time.Duration) (least, most int) {
	before := map[discovery.InstanceID]int{}
	count := func(do func(h *house)) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, h := range r.houses {
			do(h)
		}
	}
	count(func(h *house) { before[h.id] = h.asked })
	time.Sleep(while)
	least = 1 << 30
	count(func(h *house) {
		n := h.asked - before[h.id]
		least, most = min(least, n), max(most, n)
	})
	return least, most
}

// What is asked of instances does not grow with idleness; from a promotion on they are
// asked all the time.
func TestIdleInstancesAreAskedSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 3, 3, 60)
		r.start()
		if least, most := r.asked(10 * time.Minute); least < 15 || most > 28 {
			t.Errorf("idle, an instance is asked %d to %d times in 10 minutes, want it every 30 s", least, most)
		}
		r.do(promoteGreen)
		if least, most := r.asked(10 * time.Second); least < 5 {
			t.Errorf("in a rollout, an instance is asked %d to %d times in 10 s, want it every 2 s at least", least, most)
		}
	})
}

// A plan and a promotion are made of what instances say now, whenever they were asked
// last, but for one that was heard lately; one that hangs is not waited for longer than its request.
func TestAPromotionAsksFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lately = desired.FreshFor + time.Millisecond
		r := newRig(t, 2, 2, 20)
		r.start()
		time.Sleep(10 * time.Minute)
		for range 7 {
			r.arrive("b1", false)
		}
		time.Sleep(lately)
		plan, err := r.control.Plan(t.Context(), "chat", discovery.Green, policy.Overrides{})
		if err != nil || plan.Connections != 27 || len(plan.Problems) > 0 {
			t.Errorf("a plan right after 7 clients came to 20: %d connections, %v, %v", plan.Connections, plan.Problems, err)
		}
		time.Sleep(10 * time.Minute)
		r.set(func() { r.houses["10.2.0.1:9000"].hanging = true })
		time.Sleep(lately)
		began := time.Now()
		r.refused(promoteGreen, rollout.Infeasible)
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("a promotion is refused because of an instance that hangs after %v, want at most one request of 2 s", took)
		}
		began = time.Now()
		r.refused(promoteGreen, rollout.Infeasible)
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("the next one waits %v for what was asked a moment ago", took)
		}
	})
}

// Who is known to nobody is asked at once, and who refuses connections by the proxies'
// word soon, although both are idle.
func TestSignsHaveAnInstanceAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 2, 2, 20)
		r.start()
		time.Sleep(time.Minute)
		h := r.build(discovery.Green, 2)
		r.discover()
		time.Sleep(time.Second)
		if s := r.view().Seen.Instances[h.id]; s.At.IsZero() {
			t.Errorf("%s was not asked in the second after it was registered: %+v", h.id, s)
		}
		time.Sleep(time.Minute)
		b1 := r.house("b1")
		go func() { _ = b1.Shutdown(t.Context()) }() // it stops by itself
		r.set(func() {
			at := observed.Place{Colour: discovery.Blue, Addr: r.view().State.Members["b1"].Addr}
			r.loads = map[observed.Place]observed.Load{at: {Admissions: observed.Admissions{Accepted: 1, Refused: 1}, At: time.Now()}}
		})
		time.Sleep(3 * time.Second)
		if s := r.view().Seen.Instances["b1"].Status.State; s == contract.Serving {
			t.Errorf("3 s after a proxy was refused by b1, it is taken to be %s", s)
		}
	})
}
