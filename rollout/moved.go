package rollout

import (
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/returns"
)

// Moved is what a rollout has done to clients so far.
type Moved struct {
	// Evicted were closed by the funnel, Lost died with their instance, Returned
	// were seen again on the side that takes over.
	Evicted, Lost, Returned uint64
	// Exact: every instance of the side that takes over tells returning clients
	// from new ones. Otherwise Returned is 0 and Outstanding estimated.
	Exact bool
	// Outstanding is how many evicted or lost clients are on their way, and
	// NeverBack how many are no longer waited for.
	Outstanding, NeverBack int
	// AtMost is Outstanding where it is exact, and else what it hardly ever exceeds.
	AtMost int
	// Known: Outstanding and NeverBack can be told at all.
	Known bool
}

func (m Moved) gone() uint64 { return m.Evicted + m.Lost }

// Count sums up what the running rollout did; the zero value without one.
func Count(s State, seen Seen, now time.Time) Moved {
	d := decider{s: s, seen: seen, now: now}
	if s.Rollout == nil {
		return Moved{}
	}
	return d.moved()
}

func (d *decider) moved() Moved {
	if d.found.moved == nil {
		d.found.moved = new(d.countMoved())
	}
	return *d.found.moved
}

func (d *decider) countMoved() Moved {
	r := d.s.Rollout
	m := Moved{Evicted: r.Evicted, Lost: uint64(r.Lost), Returned: r.Returned, Exact: true}
	for key, x := range d.s.Members {
		sight := d.seen.Instances[key]
		evicted, returned := x.since(sight.Status)
		m.Evicted, m.Returned = m.Evicted+evicted, m.Returned+returned
		m.Lost += uint64(x.Lost)
		if r.takes(x) && x.Departed.IsZero() && sight.Status.Returned == nil {
			m.Exact = false
		}
	}
	gone := m.gone() + uint64(r.Owed)
	switch {
	case m.Exact:
		m.Returned = min(m.Returned, gone) // others may return too
		m.NeverBack = min(r.NeverBack, int(gone-m.Returned))
		m.Outstanding, m.Known = int(gone-m.Returned)-m.NeverBack, true
		m.AtMost = m.Outstanding
	case r.Returns != nil:
		m.Returned = 0
		m.Outstanding, m.NeverBack, m.Known = r.Returns.Outstanding(), r.Returns.NeverBack(), true
		m.AtMost = r.Returns.AtMost()
	default:
		m.Returned = 0
	}
	return m
}

// count starts counting a member's evictions and returns for this rollout.
func (d *decider) count(key discovery.InstanceID, status drain.Status) {
	m := d.s.Members[key]
	m.Counted, m.Evicted, m.Returned = true, status.Evicted, 0
	if status.Returned != nil {
		m.Returned = *status.Returned
	}
	d.put(key, m)
}

// fold adds what a member evicted and saw return to the rollout's sums and stops
// counting it.
func (d *decider) fold(key discovery.InstanceID, m Member) {
	if d.s.Rollout == nil || !m.Counted && m.Lost == 0 {
		return
	}
	evicted, returned := m.since(d.seen.Instances[key].Status)
	d.touch()
	d.s.Rollout.Evicted += evicted
	d.s.Rollout.Returned += returned
	m.Counted, m.Evicted, m.Returned = false, 0, 0
	d.s.Rollout.Lost += m.Lost
	m.Lost = 0
	d.put(key, m)
}

// since is what the member evicted and saw return since it was counted; a
// process that started anew counts from 0.
func (m Member) since(s drain.Status) (evicted, returned uint64) {
	if !m.Counted {
		return 0, 0
	}
	if s.Evicted >= m.Evicted {
		evicted = s.Evicted - m.Evicted
	}
	if s.Returned != nil && *s.Returned >= m.Returned {
		returned = *s.Returned - m.Returned
	}
	return evicted, returned
}

// observe takes over what was seen since the last time: what died with old
// instances, and what the side that takes over admitted and refused.
func (d *decider) observe() {
	for _, key := range d.olds() {
		m, sight := d.s.Members[key], d.seen.Instances[key]
		lost := 0
		if sight.Refused && !d.serves(key, m) {
			lost = sight.Status.Active // those clients are on their way, too
		}
		if m.Lost != lost && m.Drain != "" {
			m.Lost = lost
			d.put(key, m)
		}
	}
	for _, key := range d.news() {
		m := d.s.Members[key]
		accepted, refused := d.totals(key, m)
		if accepted == m.Accepted && refused == m.Refused {
			continue
		}
		d.touch()
		d.s.Rollout.Accepted += grown(m.Accepted, accepted)
		d.s.Rollout.Refused += grown(m.Refused, refused)
		m.Accepted, m.Refused = accepted, refused
		d.put(key, m)
	}
	d.age()
}

// marks is how many marks cover the return timeout.
const marks = 32

// age counts clients as never back that left longer than the return timeout ago.
// Who of the evicted has returned is not known, only how many: more left by then
// than have returned since, in all.
func (d *decider) age() {
	m, r := d.moved(), d.s.Rollout
	if !m.Exact {
		return
	}
	timeout := r.Policy.ReturnTimeout.D()
	gone := m.gone() + uint64(r.Owed)
	if n := len(r.Marks); n == 0 || gone > r.Marks[n-1].Gone && d.now.Sub(r.Marks[n-1].At) >= max(time.Second, timeout/marks) {
		d.touch()
		r = d.s.Rollout
		r.Marks = append(slices.Clone(r.Marks), returns.Mark{At: d.now, Gone: gone})
	}
	d.pauseAge()
	r = d.s.Rollout
	old := 0
	for old+1 < len(r.Marks) && d.now.Sub(r.Marks[old+1].At) > timeout {
		old++
	}
	if old > 0 {
		d.touch()
		r = d.s.Rollout
		r.Marks = slices.Clone(r.Marks[old:])
	}
	if first := r.Marks[0]; d.now.Sub(first.At) > timeout && first.Gone > m.Returned+uint64(r.NeverBack) {
		d.touch()
		d.s.Rollout.NeverBack = int(first.Gone - m.Returned)
	}
}

// Flow is what the side that takes over had admitted and refused by a moment.
type Flow struct {
	At                time.Time
	Accepted, Refused uint64
}

// pauseAge keeps clients from growing older while the side that takes over
// refuses more than it admits: they come back when it does not.
func (d *decider) pauseAge() {
	r := d.s.Rollout
	was, is := r.Flow, Flow{d.now, r.Accepted, r.Refused}
	if is.At.Sub(was.At) < observing || is.Accepted == was.Accepted && is.Refused == was.Refused {
		return
	}
	d.touch()
	r = d.s.Rollout
	r.Flow = is
	if is.Refused-was.Refused <= is.Accepted-was.Accepted {
		return
	}
	r.Marks = slices.Clone(r.Marks)
	for i := range r.Marks {
		r.Marks[i].At = r.Marks[i].At.Add(min(is.At.Sub(was.At), 2*observing))
	}
}

// totals is what the member has admitted and refused: by its own word where it
// has one, and what it refused also by the proxies'.
func (d *decider) totals(key discovery.InstanceID, m Member) (accepted, refused uint64) {
	load, _ := d.load(m)
	if sight := d.seen.Instances[key]; m.Drain != "" {
		return sight.Status.Accepted, max(sight.Status.Refused, load.Refused)
	}
	return load.Accepted, load.Refused
}

// grown is how far a total rose; one that fell began anew.
func grown(was, is uint64) uint64 {
	if is < was {
		return is
	}
	return is - was
}
