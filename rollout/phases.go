package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

const (
	// settle is waited after the last proxy's acknowledgement: handshakes that
	// were under way may still be answered by the old side.
	settle = 500 * time.Millisecond
	// instancePatience is how long an instance that does not answer is waited
	// for before the others go on without it.
	instancePatience = 5 * time.Second
)

func steady(t *turn) Reason {
	live := t.state.Live
	if kept := t.keptOpen(live); len(kept) > 0 {
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
// instancePatience is over.
func targetClosed(t *turn) (closed *blocker) {
	r := t.state.Rollout
	for _, f := range t.members().target {
		if !f.serves || !f.endpoint {
			continue
		}
		fresh := !f.heard.Before(r.Since)
		patient := t.now.Sub(r.Since) < instancePatience || t.seen.Instances[f.key].Err == ""
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

// soaking waits for the last evicted clients to come back.
func soaking(t *turn) Reason {
	r := t.state.Rollout
	countTarget(t)
	patient := t.now.Sub(units.Latest(r.Since, t.seen.Watching)) < instancePatience
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

// prove makes the colour live that the evidence proves. Until then nothing of the
// service is published: proxies keep what they have.
func prove(t *turn) Reason {
	live := t.state.Live
	e := gather(t.situation)
	v := e.judge(live, t.seen.Watching, t.now)
	switch {
	case v.live == "" && t.now.Before(units.Latest(t.seen.Watching.Add(instancePatience), v.until)):
		return t.wait(blockedUntil(v.until, Unsettled, "waiting: no state is stored of %s, so its live colour is being read from its instances and proxies: %s yet; proxies keep what they have", t.state.Service, v.why))
	case v.live == "":
		return t.wait(blocked(Unsettled, "waiting: no state is stored of %s, and its live colour is not proven: %s; proxies keep what they have, new ones answer 503; look which colour serves, then rolloutctl adopt it", t.state.Service, v.why))
	case v.usual && e.epoch == 0:
		s := t.write()
		s.Live, s.Unsettled = v.live, false
	default:
		takeOver(t, v.live, e.next(), "no state was stored: "+v.why)
	}
	t.wake = t.now
	return reason(IsSteady, "all new connections go to %s", v.live)
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
