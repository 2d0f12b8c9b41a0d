package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

const (
	// gatesAhead is how long before a step the gates are asked, so that the step
	// does not wait for their answers.
	gatesAhead = time.Second
	// gatesSoaking is how often they are asked while a rollout opens or soaks.
	gatesSoaking = 5 * time.Second
)

// gateVerdict is what the gates of the policy say.
type gateVerdict struct {
	// stale names a gate whose answer is too old to count; the others do not matter
	// then.
	stale string
	// closed is the answer of a closed gate; empty when all are open. red: one of
	// them said no, while one that gave no answer did not.
	closed string
	red    bool
}

// gates is what the gates of a moment say by answers that were asked for at fresh or
// later. Going back waits for no gate.
func (s *situation) gates(at policy.Moment, fresh time.Time) (v gateVerdict) {
	r := s.state.Rollout
	if r.Aborting {
		return v
	}
	for _, g := range r.Policy.Gates {
		switch reading := s.seen.Gates[g.Name]; {
		case !g.Asked(at):
		case reading.At.IsZero() || reading.At.Before(units.Latest(fresh, r.Settled)):
			v.stale = g.Name
		case !reading.Open:
			v.closed = reading.Text
			v.red = v.red || !reading.Unanswered
		}
	}
	return v
}

// followGates remembers since when the gates of the moment have been closed, and has
// the rollout go back when that is too long. It returns what to wait for; nil when all
// are open.
func followGates(t *turn, at policy.Moment, fresh time.Time) *blocker {
	r, v := t.state.Rollout, t.gates(at, fresh)
	switch {
	case v.stale != "":
		t.askGates = at
		return blocked(FreshGates, "asking gate %s", v.stale)
	case v.closed == "" && !r.Red.IsZero():
		t.rollout().Red = time.Time{}
		t.note("the gates are open again")
		return nil
	case v.closed == "":
		return nil
	case v.red && r.Red.IsZero():
		t.rollout().Red = t.now
		t.note(v.closed)
	}
	end := r.Red.Add(r.Policy.AbortAfter.D())
	returns := r.Policy.AbortAfter > 0 && !r.Red.IsZero() && v.red
	if returns && !t.now.Before(end) {
		turnRound(t, fmt.Sprintf("%s for %s: back to %s", v.closed, r.Policy.AbortAfter, r.From))
		return blocked(IsAborting, "%s; going back to %s", v.closed, t.state.Rollout.To)
	}
	for _, g := range r.Policy.Gates { // not at each look: every answer is a reason to look
		if g.Asked(at) && !t.seen.Gates[g.Name].At.After(t.now.Add(-recheck)) {
			t.askGates = at
		}
	}
	stays := ""
	if at == policy.AtStart {
		stays = fmt.Sprintf("; until it opens all new connections go to %s, and nothing is closed", r.From)
	}
	if returns {
		return blockedUntil(end, GateClosed, "waiting: %s%s; going back at %s", v.closed, stays, clock(end))
	}
	return blocked(GateClosed, "waiting: %s%s", v.closed, stays)
}

// followStartingGates is followGates before anything moves, by answers of this phase.
func followStartingGates(t *turn) *blocker {
	return followGates(t, policy.AtStart, units.Latest(t.state.Rollout.Since, t.now.Add(-gatesSoaking)))
}

// followSoakingGates is followGates during a soak.
func followSoakingGates(t *turn) *blocker {
	return followGates(t, policy.AtSoak, t.now.Add(-gatesSoaking))
}

// followStepGates is followGates before a step that may begin at StepAt.
func followStepGates(t *turn) *blocker {
	return followGates(t, policy.AtStep, t.state.Rollout.StepAt.Add(-gatesAhead))
}

// GateAnswer is what a gate said when the plan was made.
type GateAnswer struct {
	Name string `json:"name"`
	// At is when a rollout asks it; empty is at every moment.
	At         []policy.Moment `json:"at,omitempty"`
	Open       bool            `json:"open"`
	Unanswered bool            `json:"unanswered,omitempty"`
	Text       string          `json:"text"`
}

// Answered is the plan with what its gates said, by name. A closed gate is no problem:
// the promotion waits for it, with everything as it was.
func (p Plan) Answered(said map[string]observed.Reading) Plan {
	for _, g := range p.Policy.Gates {
		r, ok := said[g.Name]
		if !ok {
			r = observed.Reading{Unanswered: true, Text: "gate " + g.Name + " was not asked"}
		}
		p.Gates = append(p.Gates, GateAnswer{Name: g.Name, At: g.At, Open: r.Open, Unanswered: r.Unanswered, Text: r.Text})
		switch {
		case g.Asked(policy.AtStart) && !r.Open:
			p.Notes = append(p.Notes, fmt.Sprintf("gate %s is closed now: promote waits for it before anything moves", g.Name))
		case !g.Asked(policy.AtStart) && !g.Asked(policy.AtStep) && !p.Policy.Soaks():
			p.Notes = append(p.Notes, fmt.Sprintf("gate %s is never asked: it belongs to soaks, and there is none", g.Name))
		}
	}
	return p
}

const (
	// hookAgain is how long after a hook failed, or after it succeeded without
	// effect, it is called again.
	hookAgain = 30 * time.Second
	// loadMaxAge is how old a load report may be to be acted on.
	loadMaxAge = 10 * time.Second
)

// hookRun is the call that the member's newest order asked for.
func (s *situation) hookRun(key discovery.InstanceID, m state.Member) (observed.HookRun, bool) {
	run, ok := s.seen.Hooks[key]
	return run, ok && m.Hooked > 0 && run.Rollout == s.state.Rollout.ID && run.Attempt == m.Hooked
}

// hookSucceeded reports whether the hook has ended the member without an error.
func (s *situation) hookSucceeded(key discovery.InstanceID, m state.Member) bool {
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
			end = units.Latest(end, run.At.Add(every))
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
	r.Cap, r.Given = t.limit(), state.Allowance{}
	r.StepAt = t.now.Add(r.Policy.Funnel.Every.D())
	t.wakeBy(r.StepAt)
	return reason(HookRunning, "waiting: the hook ends %s", first.key)
}

// orderHook has the hook called for a member that holds so many connections.
func orderHook(t *turn, key discovery.InstanceID, held int) {
	m := t.state.Members[key]
	m.HookCalls = state.HookCalls{Hooked: m.Hooked + 1, HookedAt: t.now}
	t.put(key, m)
	if m.Hooked == 1 {
		t.rollout().Evicted += uint64(held)
	}
	t.note("the hook ends " + string(key) + ", which holds " + counted(held, "connection", "connections"))
}
