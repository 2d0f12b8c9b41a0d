package rollout

import (
	"fmt"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// draining closes the gates of the old side, lets connections end by themselves
// for the grace, then takes one step of the funnel after the other until the old
// side is empty.
func draining(t *turn) Reason {
	refence(t)
	r := t.state.Rollout
	if r.Settled.IsZero() {
		return closeGates(t)
	}
	countTarget(t)
	tally(t)
	if t.countsReturns() {
		observe(t, false)
	}
	spill(t)
	old := t.sortOld()
	if old.empty() && len(old.waiting) == 0 {
		t.enter(state.Soaking, fmt.Sprintf("%s is empty", r.From))
		return reason(IsSoaking, "%s is empty", r.From)
	}
	if t.stepRuns() && t.unproxied() != nil && t.now.Sub(t.seen.Watching) >= instancePatience {
		t.restep() // whom this step has not closed yet would have nowhere to go
	}
	if end := r.Settled.Add(r.Policy.Grace.D()); t.now.Before(end) {
		t.wakeBy(end)
		return reason(InGrace, "waiting: %s connections may end by themselves until %s", r.From, clock(end))
	}
	if unfit := t.targetUnfit(); unfit != nil {
		if unfit.Code == TargetSick && t.stepRuns() {
			t.restep() // what this step has not closed yet would have nowhere to go
		}
		return t.wait(unfit)
	}
	if behind := awaitProxies(t.situation, t.whereTo()); behind != nil {
		return t.wait(behind)
	}
	if old.empty() {
		return nextBatch(t, old)
	}
	return nextStep(t, old)
}

// refence begins a new epoch where a member that drains was released in this one.
func refence(t *turn) {
	for _, f := range t.members().old {
		if f.drains && released(t.situation, f) {
			t.restep()
			t.write().Epoch++
			t.note(fmt.Sprintf("%s was told to serve in this epoch and has to drain: a new one begins", f.key))
			return
		}
	}
}

// released reports whether a member was told to serve in this epoch, under another
// registration or colour. That is the last word of an epoch: it would refuse every order
// to drain. One that heard an order of this epoch has a step.
func released(s *situation, f *fact) bool {
	r, said := s.state.Rollout, s.seen.Instances[f.key].Status
	return r != nil && f.answers && !f.refusing && said.Rollout == r.ID && said.Epoch == s.state.Epoch && said.Step == 0
}

// closeGates waits until every draining instance that answers refuses new
// connections, so that what is held can only fall from then on.
func closeGates(t *turn) Reason {
	r := t.state.Rollout
	total := 0
	for _, f := range t.members().old {
		total += weight(t.situation, f)
		if !f.endpoint || f.dead || !f.drains || f.twin.rival {
			continue
		}
		patient := t.now.Sub(r.Since) < instancePatience || t.seen.Instances[f.key].Err == ""
		if patient && !f.gated {
			return t.wait(blocked(GateOpen, "waiting: %s instance %s has not said yet that it refuses new connections", r.From, f.key))
		}
	}
	t.rollout().Settled, t.rollout().Total = t.now, total
	t.note(fmt.Sprintf("%s holds %s; letting %s go", r.From, counted(total, "connection", "connections"), r.Policy.Funnel))
	countOld(t)
	countTarget(t)
	believe(t)
	beginRefusals(t)
	observe(t, true)
	t.wake = t.now
	return t.paceReason(IsDraining)
}

// refusedInAll is how many connections the service has refused.
func refusedInAll(s *situation) (n uint64) {
	for _, c := range discovery.Colours {
		told := uint64(0)
		for _, f := range s.members().colour[c] {
			told += s.seen.Instances[f.key].Status.Refused
		}
		n += max(told, s.seen.Witnesses[c].Refused)
	}
	return n
}

// beginRefusals measures what was refused until now, when the funnel starts.
func beginRefusals(t *turn) {
	r := t.rollout()
	if since := r.Refusals.Since; !since.IsZero() {
		r.Refusals.Before = float64(observed.Grown(r.Refusals.Was, refusedInAll(t.situation))) / max(1, t.now.Sub(since).Seconds())
	}
	r.Refusals.Seen = t.seen.Witnesses[r.To].Refused
}
