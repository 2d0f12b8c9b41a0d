package rollout

import (
	"fmt"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/rollout/spread"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
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
	if t.unproxied() != nil && t.stepRuns() && t.now.Sub(t.seen.Watching) >= instancePatience {
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

// nextStep waits for the running step to end and for all that the next one needs, and
// orders it.
func nextStep(t *turn, old oldSide) Reason {
	r := t.state.Rollout
	if turned := turnedAway(t.situation); turned != nil {
		if t.stepRuns() {
			t.restep() // whom this step has not closed yet might be refused, too
		}
		return t.wait(turned)
	}
	if t.now.Before(r.StepAt) {
		if t.stepRuns() && t.overruns() {
			t.restep() // the room or window that this step was for went away
		}
		askGatesBefore(t, r.StepAt)
		t.wakeBy(r.StepAt)
		return t.paceReason(IsDraining)
	}
	if len(old.held) == 0 {
		if r.Policy.Hook != nil && len(old.noEndpoint) > 0 && len(old.unreachable)+len(old.late) == 0 {
			return callHooks(t, old)
		}
		return t.wait(stuck(t.situation, old))
	}
	if askCounts(t, old) {
		t.wakeBy(t.now.Add(recheck))
		return t.paceReason(FreshCounts)
	}
	if closed := followStepGates(t); closed != nil {
		return t.wait(closed)
	}
	return step(t, old)
}

// paceReason says how many connections the funnel lets go.
func (s *situation) paceReason(c Code) Reason {
	r := s.state.Rollout
	if r.Pace.Stopped {
		return reason(TargetSick, "waiting: %s; nothing is closed until %s answers and refuses nobody for %s", r.Pace.Why, r.To, r.Policy.Funnel.Every)
	}
	n, why := r.Pace.Of(s.limit())
	if r.Given.Close > 0 {
		n, why = r.Given.Close, r.Given.Why
	}
	text := fmt.Sprintf("%s lets at most %s go every %s", r.From, counted(n, "connection", "connections"), r.Policy.Funnel.Every)
	if why != "" {
		text += ": " + why
	}
	for _, f := range s.members().old {
		if strange := overstated(s, f); strange != "" {
			return reason(c, "%s; %s", text, strange)
		}
	}
	return Reason{Code: c, Text: text}
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

// askCounts asks the instances that take part for their counts of now, and reports
// whether any has to answer first: a step is computed from what is held when it
// begins, so that what ended by itself counts, and what an instance was late with is
// not added to the next step. Where it depends on who is back, the target's are
// asked, too, if they answer.
func askCounts(t *turn, o oldSide) bool {
	r := t.state.Rollout
	since := units.Latest(r.StepAt, r.Settled, r.Turned)
	for _, f := range o.held {
		if f.heard.Before(since) {
			t.ask = append(t.ask, f.key)
		}
	}
	if t.countsReturns() {
		for _, f := range t.members().target {
			if f.answers && f.heard.Before(since) {
				t.ask = append(t.ask, f.key)
			}
		}
	}
	return len(t.ask) > 0
}

// step orders the next closes: as many as are allowed, shared out in proportion
// to what each instance holds. An instance that takes no part is told to hold, so
// that an order it never got cannot come late.
func step(t *turn, o oldSide) Reason {
	if t.countsReturns() {
		observe(t, true)
	}
	pace := t.nextPace()
	if pace.Stopped {
		return standStill(t, pace)
	}
	given, none := t.allowance(pace)
	if none != nil {
		return t.wait(none)
	}
	setPace(t, pace)
	r := t.rollout()
	every := r.Policy.Funnel.Every.D()
	limit := t.limit()
	lastPart, lastFirst := t.lastStep()
	held := make([]int, len(o.held))
	for i, f := range o.held {
		held[i] = weight(t.situation, f)
	}
	part := spread.Shares(given.Close, held)
	first := spread.Starts(part, every)
	late := spread.Delay(spread.Schedule(lastPart, lastFirst, every), spread.Schedule(part, first, every), max(r.Cap, limit)+1, every)
	r.Step++
	r.OrderedAt, r.StepAt = t.now, t.now.Add(late+every+spread.PauseAfter(every))
	r.Cap, r.Given = limit, given
	t.hold()
	writeDown(t)
	for i, f := range o.held {
		if !t.state.Members[f.key].Counted {
			t.count(f.key)
		}
		m, ceiling := t.state.Members[f.key], f.held-part[i]
		m.Quota = state.Quota{Ceiling: &ceiling, Share: part[i], Start: units.Duration(late + first[i])}
		t.put(f.key, m)
	}
	askGatesBefore(t, r.StepAt)
	t.wakeBy(r.StepAt)
	return t.paceReason(IsDraining)
}

// writeDown has the state remember what the counted members say now.
func writeDown(t *turn) {
	for _, f := range t.members().all {
		if m := t.state.Members[f.key]; m.Counted {
			if now := noted(t.situation, f.key, m); now != m.Counts {
				m.Counts = now
				t.put(f.key, m)
			}
		}
	}
}

// lastStep is the shares of the step that ends now and when the first close of each
// came, as if it had begun a step ago: it began earlier, by its own delay and the
// pause after it.
func (s *situation) lastStep() (part []int, first []time.Duration) {
	r := s.state.Rollout
	every := r.Policy.Funnel.Every.D()
	earlier := max(0, s.now.Sub(r.OrderedAt)-every)
	all := slices.Clone(r.Spent)
	for _, m := range s.state.Members {
		if m.Ceiling != nil && m.Share > 0 {
			all = append(all, state.Spent{Share: m.Share, Start: m.Start})
		}
	}
	for _, x := range all {
		part, first = append(part, x.Share), append(first, x.Start.D()-earlier)
	}
	return part, first
}

// stepRuns reports whether the running step may still close connections.
func (s *situation) stepRuns() bool {
	for _, m := range s.state.Members {
		if m.Ceiling != nil {
			return true
		}
	}
	return false
}

// standStill closes nothing for an interval, after which the pace is judged anew.
func standStill(t *turn, pace state.Pace) Reason {
	setPace(t, pace)
	if t.stepRuns() {
		t.restep()
	}
	r := t.rollout()
	r.StepAt = t.now.Add(r.Policy.Funnel.Every.D())
	t.wakeBy(r.StepAt)
	return t.paceReason(TargetSick)
}
