package rollout

import (
	"cmp"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
)

const (
	// hookAgain is how long after a hook failed, or after it succeeded without
	// effect, it is called again.
	hookAgain = 30 * time.Second
	// loadMaxAge is how old a load report may be to be acted on.
	loadMaxAge = 10 * time.Second
)

// hookRun is the call that the member's newest order asked for.
func (s *situation) hookRun(key discovery.InstanceID, m Member) (HookRun, bool) {
	run, ok := s.seen.Hooks[key]
	return run, ok && m.Hooked > 0 && run.Rollout == s.state.Rollout.ID && run.Attempt == m.Hooked
}

// hookSucceeded reports whether the hook has ended the member without an error.
func (s *situation) hookSucceeded(key discovery.InstanceID, m Member) bool {
	run, ok := s.hookRun(key, m)
	return ok && run.Done && run.Err == ""
}

// hookable lists the old instances that the hook may be called for now: none of them
// with what to wait for.
func hookable(s *situation, o oldSide) (ready []*fact, busy *blocker) {
	for _, f := range o.noEndpoint {
		key, m := f.key, s.state.Members[f.key]
		run, known := s.hookRun(key, m)
		switch {
		case m.Hooked == 0:
			ready = append(ready, f)
		case !known || !run.Done:
			return nil, blocked(HookRunning, "waiting: the hook ends %s since %s", key, clock(m.HookedAt))
		case run.Err != "" && s.now.Before(run.At.Add(hookAgain)):
			return nil, blocked(HookFailed, "waiting: the hook did not end %s (%s); it is called again at %s", key, run.Err, clock(run.At.Add(hookAgain)))
		case s.now.Before(run.At.Add(hookAgain)):
			return nil, blocked(HookRunning, "waiting: the hook for %s is through; %s is not empty or deregistered yet", key, key)
		default:
			ready = append(ready, f)
		}
	}
	return ready, nil
}

// lastHookEnds is when the step of the hook that ended last is over: what a hook
// closed, it closed before it ended. Zero when it is.
func lastHookEnds(s *situation) (end time.Time) {
	every := s.state.Rollout.Policy.Funnel.Every.D()
	for key, m := range s.state.Members {
		if run, ok := s.hookRun(key, m); ok && run.Done && s.now.Before(run.At.Add(every)) {
			end = latest(end, run.At.Add(every))
		}
	}
	return end
}

// reportedLoads is how many connections each instance holds by the proxies' word.
func reportedLoads(s *situation, of []*fact) (map[*fact]int, *blocker) {
	held := map[*fact]int{}
	for _, f := range of {
		load, ok := s.load(s.state.Members[f.key])
		if !ok || s.now.Sub(load.At) > loadMaxAge {
			return nil, blocked(Unreported, "waiting: the proxies do not report what %s holds", f.key)
		}
		held[f] = load.Held
	}
	return held, nil
}

// callHooks has the hook end instances without a drain endpoint, the smallest
// first, as many as may be closed at once. An instance goes as a whole, so it is a
// step of its own.
func callHooks(t *turn, o oldSide) Reason {
	ready, busy := hookable(t.situation, o)
	if busy != nil {
		return t.wait(busy)
	}
	if closed := followStepGates(t); closed != nil {
		return t.wait(closed)
	}
	if end := lastHookEnds(t.situation); !end.IsZero() {
		t.wakeBy(end)
		return t.paceReason(IsDraining)
	}
	held, silent := reportedLoads(t.situation, ready)
	if silent != nil {
		return t.wait(silent)
	}
	slices.SortStableFunc(ready, func(a, b *fact) int { return cmp.Compare(held[a], held[b]) })
	observe(t, true)
	pace := t.nextPace()
	if pace.Stopped {
		return standStill(t, pace)
	}
	given, none := t.allowance(pace)
	if none != nil {
		return t.wait(none)
	}
	first := ready[0]
	switch limit := t.limit(); {
	case held[first] > given.Close && held[first] > limit:
		return t.wait(blocked(HookTooLarge, "waiting: %s holds %d connections, which its hook ends all at once, and a step may close %d; raise the pace, or stop it yourself", first.key, held[first], limit))
	case held[first] > given.Close:
		return t.wait(blocked(WindowFull, "waiting: %s holds %d connections, which its hook ends all at once, and %d may go now", first.key, held[first], given.Close))
	}
	setPace(t, pace)
	left := given.Close
	for _, f := range ready {
		if left -= held[f]; left < 0 {
			break
		}
		orderHook(t, f.key, held[f])
	}
	r := t.rollout()
	r.Cap, r.Given = t.limit(), Allowance{}
	r.StepAt = t.now.Add(r.Policy.Funnel.Every.D())
	t.wakeBy(r.StepAt)
	return reason(HookRunning, "waiting: the hook ends %s", first.key)
}

// orderHook has the hook called for a member that holds so many connections.
func orderHook(t *turn, key discovery.InstanceID, held int) {
	m := t.state.Members[key]
	m.HookCalls = HookCalls{Hooked: m.Hooked + 1, HookedAt: t.now}
	t.put(key, m)
	if m.Hooked == 1 {
		t.rollout().Evicted += uint64(held)
	}
	t.note("the hook ends " + string(key) + ", which holds " + counted(held, "connection", "connections"))
}
