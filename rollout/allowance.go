package rollout

import (
	"fmt"
	"time"

	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// allowance is how many connections the next step closes; 0 with the reason why:
//
//	n = min(cap, pace, room − outstanding, window − outstanding)
func (s *situation) allowance(pace state.Pace) (given state.Allowance, none *blocker) {
	r := s.state.Rollout
	given.Close, given.Why = pace.Of(s.limit())
	if room, known := s.room(); known {
		if key, ok := s.unheard(); ok {
			return state.Allowance{}, blocked(FreshCounts, "waiting: how much room %s has is not known before %s says what it let go; bring it back, or deregister it", r.To, key)
		}
		if room <= 0 {
			return state.Allowance{}, s.full()
		}
		if room < given.Close {
			given = state.Allowance{Close: room, Why: fmt.Sprintf("%s has no room for more", r.To)}
		}
	}
	left, closed := given.Close, (*blocker)(nil)
	switch {
	case r.Policy.Window > 0:
		left, closed = s.window()
	case r.Policy.Window == units.Auto:
		left, closed = s.autoLeft()
	}
	if closed != nil {
		return state.Allowance{}, closed
	}
	if left < given.Close {
		given = state.Allowance{Close: left, Why: fmt.Sprintf("more would not fit the window of %d", s.bound())}
	}
	return doubled(s, given)
}

// limit is the most connections that the next step may close: the cap, or more
// when the policy hurries to keep the deadline.
func (s *situation) limit() int {
	r := s.state.Rollout
	n := r.Policy.Funnel.Close
	if need, late := s.deadlineNeed(); late && r.Policy.Pressure == policy.Hurry {
		n = max(n, min(need, r.Policy.HurryCap))
	}
	return n
}

// deadlineNeed reports whether the deadline cannot be kept at the cap, and how many
// connections each step would have to close to keep it.
func (s *situation) deadlineNeed() (need int, late bool) {
	r := s.state.Rollout
	if r.Policy.Deadline == 0 || r.Aborting || r.Phase != state.Draining {
		return 0, false
	}
	held := 0
	for _, f := range s.members().old {
		held += untold(s, f)
	}
	left := r.Started.Add(r.Policy.Deadline.D() - r.Policy.Notice.D()).Sub(units.Latest(s.now, r.StepAt))
	steps := int(left / r.Policy.Funnel.Every.D())
	if steps < 1 {
		return held, held > 0
	}
	need = (held + steps - 1) / steps
	return need, need > r.Policy.Funnel.Close
}

// Alarm says what an operator has to know although the rollout goes on; empty
// when there is nothing.
func Alarm(stored state.State, seen observed.Seen, now time.Time) string {
	r := stored.Rollout
	if r == nil {
		return ""
	}
	need, late := newSituation(stored, seen, now).deadlineNeed()
	if !late {
		return ""
	}
	end := r.Started.Add(r.Policy.Deadline.D())
	switch {
	case !now.Before(end):
		return fmt.Sprintf("the deadline of %s has passed", clock(end))
	case r.Policy.Pressure == policy.Hurry && need <= r.Policy.HurryCap:
		return fmt.Sprintf("hurrying: %d connections a step instead of %d, to keep the deadline of %s", need, r.Policy.Funnel.Close, clock(end))
	}
	return fmt.Sprintf("the deadline of %s is not to be kept at this pace; it would take %d connections every %s", clock(end), need, r.Policy.Funnel.Every)
}

// window is how many clients more may be on their way; 0 with the reason why.
func (s *situation) window() (left int, closed *blocker) {
	r := s.state.Rollout
	m, estimate := s.moved(), r.Returns
	if m.By.Counted() {
		if left = int(r.Policy.Window) - m.Outstanding; left <= 0 {
			return 0, blocked(WindowFull, "waiting: %s%d evicted clients are on their way, the window is %d", m.About(), m.Outstanding, r.Policy.Window)
		}
		return left, nil
	}
	switch left = estimate.Room(int(r.Policy.Window), s.limit(), r.Policy.Funnel.Every.D()); {
	case !estimate.Ready():
		return 0, blocked(Learning, "waiting: learning how many connections come to %s by themselves, before the first is closed", r.To)
	case estimate.Missing():
		return 0, blocked(NotReturning, "waiting: evicted clients are not coming back to %s since %s; about %d are on their way", r.To, clock(estimate.Short), m.Outstanding)
	case estimate.Doubt:
		return 0, blocked(NotReturning, "waiting: fewer clients come back to %s than a moment ago; about %d are on their way", r.To, m.Outstanding)
	case left <= 0 && int(r.Policy.Window) < estimate.MinWindow():
		return 0, blocked(WindowFull, "waiting: about %d evicted clients are on their way, the window is %d; with as many connections as come by themselves the smallest that can be kept is %d", m.Outstanding, r.Policy.Window, estimate.MinWindow())
	case left <= 0:
		return 0, blocked(WindowFull, "waiting: %d evicted clients are on their way, the window is %d", m.Outstanding, r.Policy.Window)
	}
	return left, nil
}

// overruns reports whether the running step would take more room or window than
// there is by now.
func (s *situation) overruns() bool {
	r := s.state.Rollout
	if room, known := s.room(); known && room < 0 {
		return true
	}
	if r.Policy.Window <= 0 || r.Returns == nil || s.moved().By.Counted() {
		return false
	}
	rest := r.StepAt.Sub(s.now)
	left := int(float64(r.Given.Close) * min(1, rest.Seconds()/r.Policy.Funnel.Every.D().Seconds()))
	return r.Returns.Stops(int(r.Policy.Window), left, rest)
}

// nextPace is the pace for the next step.
func (s *situation) nextPace() state.Pace {
	r := s.state.Rollout
	v := state.Vitals{Admissions: r.Toll.Admissions, Open: len(s.members().open[r.To]), Bound: r.Policy.Slow.D()}
	for _, f := range s.members().open[r.To] {
		if ms := s.seen.Instances[f.key].Status.HandshakeMS; ms != nil {
			v.Slow = max(v.Slow, time.Duration(*ms)*time.Millisecond)
		}
	}
	v.Slow = max(v.Slow, s.seen.Witnesses[r.To].ConnectP99)
	v.Usual = r.Refusals.Usual(max(r.Policy.Funnel.Every.D(), s.now.Sub(units.Latest(r.OrderedAt, r.Settled))))
	return r.Pace.Next(s.limit(), v)
}

// setPace makes next the pace of the step that begins now.
func setPace(t *turn, next state.Pace) {
	r := t.rollout()
	was := r.Pace
	r.Pace = next
	switch {
	case next.Stopped && was.Stopped:
	case next.Stopped:
		t.note(next.Why + ": nothing is closed")
	case was.Stopped:
		t.note(fmt.Sprintf("%s refuses nobody any more: at most %d every %s", r.To, next.Limit, r.Policy.Funnel.Every))
	case next.Limit > 0 && (was.Limit == 0 || next.Limit < was.Limit):
		t.note(fmt.Sprintf("%s: at most %d every %s", next.Why, next.Limit, r.Policy.Funnel.Every))
	case next.Limit == 0 && was.Limit > 0:
		t.note("the pace is " + r.Policy.Funnel.String() + " again")
	}
}

const (
	// autoCaps is how many caps the automatic window is at least, and autoTimes how many
	// times as many as are let go in the longest return time.
	autoCaps  = 5
	autoTimes = 2
)

// bound is the most clients that may be on their way at once; 0 is no bound.
func (s *situation) bound() int {
	r := s.state.Rollout
	if r.Policy.Window != units.Auto {
		return max(0, int(r.Policy.Window))
	}
	slowest := r.Outstanding.Slowest.D().Seconds() / r.Policy.Funnel.Every.D().Seconds()
	return max(autoCaps*s.limit(), int(autoTimes*slowest*float64(s.limit())))
}

// autoLeft is how many clients more the automatic window lets be on their way; 0 with
// the reason why.
func (s *situation) autoLeft() (left int, closed *blocker) {
	r, m, most := s.state.Rollout, s.moved(), s.bound()
	away, said := m.Outstanding, m.About()
	if !m.By.Counted() {
		away, said = r.Outstanding.Away(m.Gone()+uint64(r.Owed)), "at least "
	}
	if left = most - away; left <= 0 {
		return 0, blocked(NotReturning, "waiting: %s%d evicted clients are not back on %s, and the automatic window is %d; see why they do not come, or set a window", said, away, r.To, most)
	}
	return left, nil
}
