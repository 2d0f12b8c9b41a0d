package rollout

import (
	"cmp"
	"fmt"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/drain"
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
	return given, nil
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
		held += weight(s, f)
	}
	left := r.Started.Add(r.Policy.Deadline.D()).Sub(units.Latest(s.now, r.StepAt))
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

// full says that the target has no room, and for how many.
func (s *situation) full() *blocker {
	r := s.state.Rollout
	held, room := s.usage()
	if r.Policy.Stagger.InPlace {
		return blocked(NoRoom, "waiting: %s is full (%d of %d, %d on their way); replace emptied %s instances by %s ones, or abort",
			r.To, held, held+room, s.moved().Outstanding, r.From, r.To)
	}
	return blocked(NoRoom, "waiting: %s has no room for more (%d of %d, %d on their way); add %s instances, or abort", r.To, held, held+room, s.moved().Outstanding, r.To)
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

// roomLeft is what the target can still take, in connections; unknown is no bound.
type roomLeft struct {
	n     int
	known bool
}

// room is what the target can still take: Σ (⌊capacity · headroom⌋ − active) over
// its open instances, less the clients that are on their way. It is not known, and
// no bound, unless every one of them has a capacity. An instance that does not answer
// counts as full, or as having closed all that it was last told to.
func (s *situation) room() (n int, known bool) {
	if s.memo.room == nil {
		n, known := s.sumRoom()
		s.memo.room = &roomLeft{n, known}
	}
	return s.memo.room.n, s.memo.room.known
}

func (s *situation) sumRoom() (int, bool) {
	r := s.state.Rollout
	open := s.members().open[r.To]
	for _, f := range open {
		if s.capacity(f, r.Policy) == 0 {
			return 0, false
		}
	}
	if _, ok := s.unheard(); ok {
		return 0, true
	}
	_, total := s.usage()
	total -= s.moved().AtMost
	for _, f := range s.members().all {
		if !f.answers && f.endpoint {
			total -= s.state.Members[f.key].Share
		}
	}
	return total, len(open) > 0
}

// capacity is how many connections the member may hold: what it declares or the
// policy's default, and no more than the limit that it says itself, times the
// headroom; 0 is no bound.
func (s *situation) capacity(f *fact, p policy.Policy) int {
	n := p.Capacity
	if f.instance != nil {
		n = cmp.Or(f.instance.Capacity, n)
	}
	if limit := s.seen.Instances[f.key].Status.Limit; limit > 0 && (n == 0 || limit < n) {
		n = limit
	}
	return int(int64(min(n, drain.MaxConnections)) * int64(cmp.Or(p.Headroom, units.Whole)) / int64(units.Whole))
}

// usage is how many connections the open instances of the target hold, and how many
// more they may. An instance that does not say what it holds counts as full, and one
// that is above its capacity takes room from the others.
func (s *situation) usage() (held, room int) {
	r := s.state.Rollout
	for _, f := range s.members().open[r.To] {
		n, known := s.usageOf(f)
		most := s.capacity(f, r.Policy)
		if borne := weight(s, f); borne < n { // it overstates, and uses its own room at most
			n = max(borne, min(n, most))
		} else if load, reported := s.load(s.state.Members[f.key]); reported && f.endpoint && complete(s, f.colour) {
			n = max(n, load.Held) // it understates
		}
		held += n
		if known {
			room += most - n
		}
	}
	return held, room
}

// usageOf is how many connections an instance of the target holds. One without a
// drain endpoint that the proxies do not report holds what their witness counts
// beyond the reported ones.
func (s *situation) usageOf(f *fact) (n int, known bool) {
	if f.known || f.endpoint {
		return f.held, f.known
	}
	w, ok := s.seen.Witnesses[f.colour]
	if !ok || len(w.Missing) > 0 {
		return 0, false
	}
	n = w.Active
	for _, other := range s.members().colour[f.colour] {
		if load, ok := s.load(s.state.Members[other.key]); ok {
			n -= load.Held
		}
	}
	return max(0, n), true
}

// closeFull closes the target's endpoints that are at their capacity while others of it
// have room: proxies share new connections out evenly and would go on sending them some.
func (s *situation) closeFull(endpoints map[discovery.Colour][]Endpoint) {
	r := s.state.Rollout
	if r == nil || r.Phase != state.Draining {
		return
	}
	full := map[discovery.InstanceID]bool{}
	open := s.members().open[r.To]
	for _, f := range open {
		n, known := s.usageOf(f)
		if most := s.capacity(f, r.Policy); most > 0 && known && n >= most {
			full[f.key] = true
		}
	}
	if len(full) == len(open) {
		return
	}
	for i, e := range endpoints[r.To] {
		endpoints[r.To][i].Draining = e.Draining || full[e.ID]
	}
}

// countsReturns reports whether a decision depends on how many clients are on their
// way.
func (s *situation) countsReturns() bool {
	_, bounded := s.room()
	return bounded || s.state.Rollout.Policy.Window > 0
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
