package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/evidence"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

func advance(t *turn) Reason {
	r := t.state.Rollout
	switch {
	case t.state.Retired && len(t.state.Members) == 0:
		return reason(IsRetired, "%s left the configuration and is empty", t.state.Service)
	case t.state.Retired:
		return reason(IsRetired, "%s left the configuration; %s not proven empty yet", t.state.Service, counted(len(t.state.Members), "instance is", "instances are"))
	case t.state.Unsettled:
		return prove(t)
	case r == nil:
		return steady(t)
	case r.Paused:
		return reason(Paused, "paused; resume goes on, abort goes back")
	}
	switch r.Phase {
	case state.Opening:
		return opening(t)
	case state.Shifting:
		return shifting(t)
	case state.Confirming:
		return confirming(t)
	case state.Draining:
		return draining(t)
	default:
		return soaking(t)
	}
}

// settle is waited after the last proxy's acknowledgement: handshakes that
// were under way may still be answered by the old side.
const settle = 500 * time.Millisecond

func steady(t *turn) Reason {
	live := t.state.Live
	kept := t.keptOpen(live)
	if i := slices.IndexFunc(kept, func(f *fact) bool { return f.shut }); i >= 0 {
		return t.wait(blocked(HeldOpen, "no instance of %s has said that it takes new connections; %s get them all the same, since nobody else would (%s); mend their drain endpoints, or promote %s", live, keys(kept), whyClosed(t.situation, kept[i]), live.Other()))
	}
	if len(kept) > 0 {
		return t.wait(blocked(HeldOpen, "no instance of %s is registered beyond doubt; those that serve keep its new connections (%s); mend their registrations, or promote %s", live, keys(kept), live.Other()))
	}
	if len(t.state.Members) > 0 && len(t.members().open[live]) == 0 {
		return t.wait(blocked(NoHealthyLive, "%s has no healthy instance, new connections get 503; start some, or promote %s", live, live.Other()))
	}
	keepClosed(t, t.members().colour[live])
	if shut := shutOut(t.situation, live); len(shut) > 0 {
		return reason(IsSteady, "all new connections go to %s, none to %s before it says that it takes them (%s)", live, keys(shut), whyClosed(t.situation, shut[0]))
	}
	return reason(IsSteady, "all new connections go to %s", live)
}

// prove makes the colour live that the evidence proves. Until then nothing of the
// service is published: proxies keep what they have.
func prove(t *turn) Reason {
	live := t.state.Live
	e := gather(t.situation)
	v := e.Judge(live, t.seen.Watching, t.now)
	switch {
	case v.Live == "" && t.now.Before(units.Latest(t.seen.Watching.Add(observed.Patience), v.Until)):
		return t.wait(blockedUntil(v.Until, Unsettled, "waiting: no state is stored of %s, so its live colour is being read from its instances and proxies: %s yet; proxies keep what they have", t.state.Service, v.Why))
	case v.Live == "":
		return t.wait(blocked(Unsettled, "waiting: no state is stored of %s, and its live colour is not proven: %s; proxies keep what they have, new ones answer 503; look which colour serves, then rolloutctl adopt it", t.state.Service, v.Why))
	case v.Usual && e.Epoch == 0:
		s := t.write()
		s.Live, s.Unsettled = v.Live, false
	default:
		takeOver(t, v.Live, e.Next(), "no state was stored: "+v.Why)
	}
	t.wake = t.now
	return reason(IsSteady, "all new connections go to %s", v.Live)
}

// gather is the evidence about which colour of the service is live.
func gather(s *situation) evidence.Evidence {
	of := map[discovery.Colour][]evidence.Instance{}
	for _, f := range s.members().all {
		of[f.colour] = append(of[f.colour], evidence.Instance{ID: f.key, Endpoint: f.endpoint})
	}
	return evidence.Gather(of, s.seen, s.now)
}

// takeOver makes live the live colour in an epoch, which is above every one that is
// remembered, and writes it into the history: from that the instances are told to serve.
func takeOver(t *turn, live discovery.Colour, epoch uint64, event string) {
	s := t.write()
	s.Live, s.Unsettled, s.Epoch = live, false, epoch
	s.History = append(slices.Clip(s.History), state.Record{
		ID: fmt.Sprintf("%s-%d", s.Service, s.Epoch), From: live.Other(), To: live, Outcome: state.Adopted,
		Started: t.now, Ended: t.now, Returned: new(uint64), NeverBack: new(uint64), Events: []state.Event{{At: t.now, Text: event}},
	})
}

// opening waits until the target takes new connections and the gates let it begin.
func opening(t *turn) Reason {
	r := t.state.Rollout
	if closed := targetClosed(t); closed != nil {
		return t.wait(closed)
	}
	if len(t.members().open[r.To]) == 0 {
		return t.wait(cmp.Or(t.rivals(), blocked(TargetSick, "waiting: %s has no healthy instance that takes new connections; start some, or abort", r.To)))
	}
	if behind := awaitProxies(t.situation, everything); behind != nil {
		return t.wait(behind)
	}
	if closed := followStartingGates(t); closed != nil {
		return t.wait(closed)
	}
	closeUnheard(t)
	if r.Policy.Canary > 0 && !r.Aborting {
		t.enter(state.Shifting, fmt.Sprintf("canary: %s of new connections to %s for %s", r.Policy.Canary, r.To, r.Policy.Soak))
		t.rollout().Weight = r.Policy.Canary
		return reason(IsShifting, "%s of new connections go to %s", r.Policy.Canary, r.To)
	}
	return switchOver(t)
}

// targetClosed asks the healthy instances of the target until they say that they
// serve, and names one that does not; one that gives no answer is waited for until
// observed.Patience is over.
func targetClosed(t *turn) (closed *blocker) {
	r := t.state.Rollout
	for _, f := range t.members().target {
		if !f.serves || !f.endpoint {
			continue
		}
		fresh := !f.heard.Before(r.Since)
		patient := t.now.Sub(r.Since) < observed.Patience || t.seen.Instances[f.key].Err == ""
		if !patient || fresh && !f.refusing {
			continue
		}
		if closed == nil {
			closed = blocked(TargetClosed, "waiting: %s instance %s has not said yet that it takes new connections%s", r.To, f.key, whyUnsaid(t.seen.Instances[f.key]))
		}
		if !fresh {
			t.ask = append(t.ask, f.key)
		}
	}
	return closed
}

// shifting holds the canary share for the policy's soak.
func shifting(t *turn) Reason {
	r := t.state.Rollout
	if unfit := t.targetUnfit(); unfit != nil {
		return t.wait(unfit)
	}
	if behind := awaitProxies(t.situation, t.whereTo()); behind != nil {
		return t.wait(behind)
	}
	if r.Settled.IsZero() {
		t.rollout().Settled = t.now
	}
	if closed := followSoakingGates(t); closed != nil {
		return t.wait(closed)
	}
	if end := r.Settled.Add(r.Policy.Soak.D()); t.now.Before(end) {
		t.wakeBy(end)
		return reason(IsShifting, "canary: %s of new connections go to %s until %s", r.Policy.Canary, r.To, clock(end))
	}
	return switchOver(t)
}

func switchOver(t *turn) Reason {
	to := t.state.Rollout.To
	t.rollout().RefusedBefore = refusalRate(t.situation, t.state.Rollout.From)
	t.enter(state.Confirming, fmt.Sprintf("all new connections to %s", to))
	return reason(Unconfirmed, "waiting: the proxies are told to send new connections to %s", to)
}

// confirming waits until no proxy sends new connections to the old side. It settles by
// the routes alone: endpoints come and go meanwhile.
func confirming(t *turn) Reason {
	r := t.state.Rollout
	need := t.whereTo()
	if !r.Settled.IsZero() {
		need = routesOnly
	}
	if behind := awaitProxies(t.situation, need); behind != nil {
		if !r.Settled.IsZero() {
			t.rollout().Settled = time.Time{}
		}
		return t.wait(behind)
	}
	if r.Settled.IsZero() {
		t.rollout().Settled = t.now
	}
	if end := r.Settled.Add(settle); t.now.Before(end) {
		t.wakeBy(end)
		return reason(Settling, "waiting: handshakes that were under way when the last proxy confirmed may still end on %s", r.From)
	}
	t.enter(state.Draining, fmt.Sprintf("every proxy sends new connections to %s; %s refuses new ones", r.To, r.From))
	return reason(GateOpen, "waiting: %s instances are told to refuse new connections", r.From)
}

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
	if t.stepRuns() && t.unproxied() != nil && t.now.Sub(t.seen.Watching) >= observed.Patience {
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
		holdAsked(t)
		return t.wait(unfit)
	}
	if behind := awaitProxies(t.situation, t.whereTo()); behind != nil {
		holdAsked(t)
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
		patient := t.now.Sub(r.Since) < observed.Patience || t.seen.Instances[f.key].Err == ""
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

// beginRefusals measures what was refused until now, when the funnel starts.
func beginRefusals(t *turn) {
	r := t.rollout()
	if since := r.Refusals.Since; !since.IsZero() {
		r.Refusals.Before = float64(observed.Grown(r.Refusals.Was, refusedInAll(t.situation))) / max(1, t.now.Sub(since).Seconds())
	}
	r.Refusals.Seen = t.seen.Witnesses[r.To].Refused
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

// soaking waits for the last evicted clients to come back.
func soaking(t *turn) Reason {
	r := t.state.Rollout
	countTarget(t)
	patient := t.now.Sub(units.Latest(r.Since, t.seen.Watching)) < observed.Patience
	if key, ok := t.unheard(); ok && patient {
		return t.wait(blocked(FreshCounts, "%s is empty; waiting: %s has not said yet what it let go and saw return", r.From, key))
	}
	tally(t)
	if t.moved().By.Counted() || t.countsReturns() {
		observe(t, false)
	}
	moved := t.moved()
	end := r.Since.Add(r.Policy.ReturnTimeout.D())
	if n := moved.AtLeast; n > 0 && t.now.Before(end) {
		said := counted(n, "evicted client is", "evicted clients are")
		if !moved.Exact {
			said = "at least " + said
		}
		return t.wait(blockedUntil(end, IsSoaking, "%s not back yet; soaking until %s", said, clock(end)))
	}
	finish(t, state.Done)
	return reason(IsSteady, "all new connections go to %s", t.state.Live)
}

// finish ends the rollout and remembers it.
func finish(t *turn, how state.Outcome) {
	moved := t.moved()
	for _, c := range discovery.Colours {
		keepClosed(t, t.members().colour[c])
	}
	for key := range t.state.Members {
		t.fold(key)
	}
	s := t.write()
	s.History = append(slices.Clip(s.History), s.Rollout.Ended(how, moved, t.now))
	if over := len(s.History) - state.HistoryKept; over > 0 {
		s.History = slices.Delete(s.History, 0, over)
	}
	s.Live, s.Rollout = s.Rollout.To, nil
	t.wake = t.now
}
