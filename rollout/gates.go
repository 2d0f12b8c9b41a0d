package rollout

import (
	"fmt"
	"time"
)

const (
	// gatesAhead is how long before a step the gates are asked, so that the step
	// does not wait for their answers.
	gatesAhead = time.Second
	// gatesSoaking is how often they are asked during a soak.
	gatesSoaking = 5 * time.Second
)

// gatesOpen reports whether every gate is open by an answer that was asked for
// at fresh or later. Going back waits for no gate.
func (d *decider) gatesOpen(fresh time.Time) (Reason, bool) {
	r := d.s.Rollout
	if len(r.Policy.Gates) == 0 || r.Aborting {
		return Reason{}, true
	}
	stale, closed, red := "", "", false
	for _, g := range r.Policy.Gates {
		switch reading := d.seen.Gates[g.Name]; {
		case reading.At.IsZero() || reading.At.Before(latest(fresh, r.Settled)):
			stale = g.Name
		case !reading.Open:
			closed = reading.Text
			red = red || !reading.Unanswered
		}
	}
	if stale != "" {
		d.askGates = true
		return d.wait(reason(FreshGates, "asking gate %s", stale)), false
	}
	if closed == "" {
		if !r.Red.IsZero() {
			d.touch()
			d.s.Rollout.Red = time.Time{}
			d.s.Rollout.note(d.now, "the gates are open again")
		}
		return Reason{}, true
	}
	if red && r.Red.IsZero() {
		d.touch()
		r = d.s.Rollout
		r.Red = d.now
		r.note(d.now, closed)
	}
	why := reason(GateClosed, "waiting: %s", closed)
	if after := r.Policy.AbortAfter.D(); after > 0 && !r.Red.IsZero() && red {
		end := r.Red.Add(after)
		if !d.now.Before(end) {
			d.goBack(fmt.Sprintf("%s for %s: back to %s", closed, r.Policy.AbortAfter, r.From))
			return reason(IsAborting, "%s; going back to %s", closed, d.s.Rollout.To), false
		}
		d.wakeBy(end)
		why = reason(GateClosed, "waiting: %s; going back at %s", closed, clock(end))
	}
	for _, g := range r.Policy.Gates { // not at each look: every answer is a reason to look
		d.askGates = d.askGates || !d.seen.Gates[g.Name].At.After(d.now.Add(-recheck))
	}
	return d.wait(why), false
}

// askGatesBefore has the gates asked a moment before a step.
func (d *decider) askGatesBefore(step time.Time) {
	r := d.s.Rollout
	if len(r.Policy.Gates) == 0 || r.Aborting {
		return
	}
	ask := step.Add(-gatesAhead)
	if d.now.Before(ask) {
		d.wakeBy(ask)
		return
	}
	for _, g := range r.Policy.Gates {
		d.askGates = d.askGates || d.seen.Gates[g.Name].At.Before(ask)
	}
}

// soakingGates is gatesOpen during a soak.
func (d *decider) soakingGates() (Reason, bool) {
	return d.gatesOpen(d.now.Add(-gatesSoaking))
}
