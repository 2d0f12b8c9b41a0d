package rollout

import (
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/returns"
	"github.com/sluice-proxy/sluice/rollout/state"
)

const (
	// observePeriod is how often returns are observed while something depends on
	// them.
	observePeriod = 500 * time.Millisecond
	// countMaxAge is the most that one old count makes the mean age of counts
	// older: an instance that ceased to answer holds up nobody's time.
	countMaxAge = 2 * time.Second
	// estimateMaxAge is how old an estimate may be to be shown: one that nothing depends
	// on is not kept up to date.
	estimateMaxAge = 5 * time.Second
	// markCount is how many marks cover the return timeout.
	markCount = 32
)

// Count sums up what the running rollout did; the zero value without one.
func Count(s state.State, seen observed.Seen, now time.Time) state.Moved {
	if s.Rollout == nil {
		return state.Moved{}
	}
	return newSituation(s, seen, now).moved()
}

func (s *situation) moved() state.Moved {
	if s.memo.moved == nil {
		s.memo.moved = new(s.sumMoved())
	}
	return *s.memo.moved
}

func (s *situation) sumMoved() state.Moved {
	r := s.state.Rollout
	m, all := state.Moved{Lost: uint64(r.Lost), By: state.ByTickets.OrBelow(r.Basis)}, r.Toll.Totals
	for key, x := range s.state.Members {
		sight := s.seen.Instances[key]
		done := deeds(s, key, x)
		all, m.Lost = all.Plus(done.Totals), m.Lost+uint64(done.Lost)
		if r.Takes(x) && x.Departed.IsZero() && !(x.Closed && sight.At.IsZero()) {
			m.By = m.By.OrBelow(told(s, key, x))
		}
	}
	if m.Evicted, m.Told = all.Evicted, all.Returned; m.By == state.ByTickets {
		m.Told = all.Ticketed
	}
	gone := m.Gone() + uint64(r.Owed)
	switch {
	case m.By.Counted():
		m.Exact, m.Known = m.By == state.ByTickets && m.Lost == 0 && r.Owed == 0, true
		m.Returned = min(m.Told, gone)
		m.NeverBack = min(r.NeverBack, int(gone-m.Returned))
		m.Outstanding = int(gone-m.Returned) - m.NeverBack
		m.AtMost, m.AtLeast = m.Outstanding, m.Outstanding
		if !m.Exact {
			m.AtLeast = min(m.AtLeast, r.Uncovered(m))
		}
	default:
		m.AtLeast = r.Uncovered(m)
		m.AtMost = m.AtLeast
		if e := r.Toll.Returns; e != nil {
			m.Outstanding, m.AtMost = max(m.AtLeast, e.Outstanding()), max(m.AtLeast, e.AtMost())
			m.Returned, m.Known = uint64(e.Returned()), s.now.Sub(e.Seen) <= estimateMaxAge
		}
	}
	return m
}

// countOld counts the old members, and countTarget the target's, that are not counted yet.
func countOld(t *turn) {
	for _, f := range t.members().old {
		countMember(t, f)
	}
}

func countTarget(t *turn) {
	for _, f := range t.members().target {
		countMember(t, f)
	}
}

func countMember(t *turn, f *fact) {
	if t.state.Members[f.key].Counted || !f.said() || f.takes && t.seen.Instances[f.key].Refused {
		return // nobody says where it begins
	}
	t.count(f.key)
	m := t.state.Members[f.key]
	m.Admissions = f.admissions
	t.put(f.key, m)
}

// tally takes over what was seen since the last look: what died with instances, and
// what the target admitted and refused.
func tally(t *turn) {
	for _, f := range t.members().old {
		tallyLost(t, f)
	}
	for _, f := range t.members().target {
		if t.state.Members[f.key].Counted {
			tallyLost(t, f)
		}
		m := t.state.Members[f.key]
		if !f.said() || f.admissions == m.Admissions {
			continue // until it is heard after a restart, its totals are not 0 but unknown
		}
		r := t.rollout()
		since := f.admissions.After(m.Admissions)
		r.Accepted, r.Refusals.Told = r.Accepted+since.Accepted, r.Refusals.Told+since.Refused
		m.Admissions = f.admissions
		if m.Counted {
			m.Counts = noted(t.situation, f.key, m)
		}
		t.put(f.key, m)
	}
	tallyRefusals(t)
	mark(t)
	believe(t)
	age(t)
	followOutstanding(t)
}

// tallyLost takes over what died with a member's process, until it answers again.
func tallyLost(t *turn, f *fact) {
	lost := 0
	if f.dead || !f.serves && t.seen.Instances[f.key].Refused {
		lost = f.held - f.asked // those clients are on their way, too
		if f.heard.IsZero() {
			lost = t.state.Members[f.key].Process.Held
		} else if m := t.state.Members[f.key]; m.Counted {
			lost = min(lost, m.CouldHold(t.seen.Instances[f.key].Status))
		}
	}
	if m := t.state.Members[f.key]; m.Lost != lost && f.endpoint {
		m.Lost = lost
		t.put(f.key, m)
	}
}

// mark remembers when how many had left, back to the return timeout.
func mark(t *turn) {
	m, r := t.moved(), t.state.Rollout
	timeout := r.Policy.ReturnTimeout.D()
	gone := m.Gone() + uint64(r.Owed)
	if n := len(r.Marks); n == 0 || gone > r.Marks[n-1].Gone && t.now.Sub(r.Marks[n-1].At) >= max(time.Second, timeout/markCount) {
		t.rollout().Marks = append(slices.Clone(r.Marks), state.Mark{Mark: returns.Mark{At: t.now, Gone: gone}, Back: r.Outstanding.Back - min(r.Outstanding.Back, r.Outstanding.Aged)})
	}
	pauseAge(t)
	old := 0
	for old+1 < len(r.Marks) && t.now.Sub(r.Marks[old+1].At) > timeout {
		old++
	}
	if old > 0 {
		t.rollout().Marks = slices.Clone(r.Marks[old:])
	}
}

// age counts clients as never back that left longer than the return timeout ago.
// It is not known which of the evicted clients have returned, only how many: never
// back are those that left by then, less all that have returned since the beginning.
func age(t *turn) {
	m, r := t.moved(), t.state.Rollout
	if !m.By.Counted() {
		return
	}
	timeout := r.Policy.ReturnTimeout.D()
	if first := r.Marks[0]; t.now.Sub(first.At) > timeout && first.Gone > m.Returned+uint64(r.NeverBack) {
		t.rollout().NeverBack = int(first.Gone - m.Returned)
	}
}

// pauseAge keeps clients from growing older while the target refuses more than it
// admits: they come back when it does not.
func pauseAge(t *turn) {
	r := t.state.Rollout
	was, is := r.Flow, state.Flow{At: t.now, Admissions: r.Toll.Admissions}
	if is.At.Sub(was.At) < observePeriod || is.Admissions == was.Admissions {
		return
	}
	t.rollout().Flow = is
	if is.Refused-was.Refused <= is.Accepted-was.Accepted {
		return
	}
	r.Marks = slices.Clone(r.Marks)
	for i := range r.Marks {
		r.Marks[i].At = r.Marks[i].At.Add(min(is.At.Sub(was.At), 2*observePeriod))
	}
}

// observe keeps the estimate of clients on their way up to date: twice a second where
// a decision depends on it, else only when asked to. Where they are counted there is
// nothing to estimate.
func observe(t *turn, asked bool) {
	r, m := t.state.Rollout, t.moved()
	if m.By.Counted() {
		t.wakeBy(t.now.Add(observePeriod))
		return
	}
	next, o := r.Returns, returns.Observation{Now: t.now, Evicted: m.Gone() + t.unreportedCloses(), AsOf: t.admissionsAsOf(), Accepted: r.Accepted}
	if m.By == state.ByExcess {
		o.Accepted = m.Told
	}
	if next == nil {
		next = new(returns.New(r.Policy.ReturnTimeout.D()).Observe(o))
	}
	o.Evicted += uint64(r.Owed) // those left just now, if it is the first time
	if last := r.Marks[max(0, len(r.Marks)-1):]; len(last) > 0 && t.now.Sub(last[0].At) > 2*r.Policy.ReturnTimeout.D() && next.MissesOrganic() {
		t.rollout().Returns = new(returns.New(r.Policy.ReturnTimeout.D()).Observe(o))
		t.wakeBy(t.now.Add(observePeriod))
		return
	}
	if due := next.Seen.Add(observePeriod); r.Returns != nil && t.now.Before(due) && (!asked || next.Knows(o)) {
		t.wakeBy(due)
		return
	}
	t.rollout().Returns = new(next.Observe(o))
	t.wakeBy(t.now.Add(observePeriod))
}

// unreportedCloses is how many connections the running step has closed that were not
// reported yet, if each instance does what it was told.
func (s *situation) unreportedCloses() (n uint64) {
	r := s.state.Rollout
	for key, m := range s.state.Members {
		if sight := s.seen.Instances[key]; m.Counted && m.Ceiling != nil && m.Share > 0 {
			closed := func(at time.Time) int {
				return m.ClosedBy(at.Sub(r.OrderedAt), r.Policy.Funnel.Every.D())
			}
			n += uint64(closed(s.now) - closed(sight.At))
		}
	}
	return n
}

// admissionsAsOf is the moment by which the target's instances had accepted as many
// as is known: the mean of when each was counted. It is exact while each accepts at
// an even rate, all about as many.
func (s *situation) admissionsAsOf() time.Time {
	age, n := time.Duration(0), time.Duration(0)
	for _, f := range s.members().target {
		m, at := s.state.Members[f.key], f.heard
		if !f.endpoint {
			load, _ := s.load(m)
			at = load.At
		}
		if m.Counted {
			age, n = age+min(countMaxAge, max(0, s.now.Sub(at))), n+1
		}
	}
	return s.now.Add(-age / max(1, n))
}

// followOutstanding reckons who is on his way, and how long the slowest took.
func followOutstanding(t *turn) {
	r, m := t.state.Rollout, t.moved()
	o, gone := r.Outstanding, m.Gone()+uint64(r.Owed)
	if m.By.Counted() {
		o.Back, o.Aged = m.Returned+uint64(m.NeverBack), uint64(m.NeverBack)
	} else {
		late := m.Lost + uint64(r.Owed)
		o.Back, o.Late = o.Back+late-min(late, o.Late), late
		if accepted := r.Toll.Accepted; accepted != o.Seen || o.Spare > 0 {
			o = o.With(gone+t.unreportedCloses(), accepted, t.now)
		}
		if first := r.Marks[0]; t.now.Sub(first.At) > r.Policy.ReturnTimeout.D() && first.Gone > o.Back {
			o.Back, o.Aged = first.Gone, o.Aged+first.Gone-o.Back // no longer waited for
		}
	}
	if t.now.Sub(o.Judged) >= r.Policy.Funnel.Every.D() {
		o = o.Judge(gone, r.Marks, t.now)
	}
	if o != r.Outstanding {
		t.rollout().Outstanding = o
	}
}

// tallyRefusals takes over what the proxies' counters say.
func tallyRefusals(t *turn) {
	r := t.state.Rollout
	next := r.Refusals
	if w, ok := t.seen.Witnesses[r.To]; ok && w.Refused != next.Seen {
		next.Proxied, next.Seen = next.Proxied+observed.Grown(next.Seen, w.Refused), w.Refused
	}
	if refused := max(next.Told, next.Proxied, r.Toll.Refused); next != r.Refusals || refused != r.Toll.Refused {
		t.rollout().Refusals = next
		t.rollout().Toll.Refused = refused
	}
}
