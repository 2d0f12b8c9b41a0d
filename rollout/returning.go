package rollout

import "time"

// observing is how often what returned is observed while something depends on it.
const observing = time.Second

// track keeps the estimate of who is on his way up to date: each second where a
// decision depends on it, else when asked to.
func (d *decider) track(asked bool) {
	r := d.s.Rollout
	m := d.moved()
	gone, came := m.gone()+uint64(r.Owed), r.Accepted
	if m.Exact {
		came = m.Returned
	}
	next := r.Returns
	if next == nil || next.Exact != m.Exact {
		next = new(NewReturns(m.Exact, r.Policy.ReturnTimeout.D()).Observe(d.now, gone-uint64(r.Owed), came)) // the owed left just now
	} else if due := next.Seen.Add(observing); d.now.Before(due) && (!asked || next.knows(gone, came)) {
		d.wakeBy(due)
		return
	}
	d.touch()
	d.s.Rollout.Returns = new(next.Observe(d.now, gone, came))
	d.wakeBy(d.now.Add(observing))
}

// depends reports whether a decision depends on who is on his way.
func (d *decider) depends() bool {
	_, bounded := d.room()
	return bounded || d.s.Rollout.Policy.Window > 0
}

// window is how many clients more may be on their way; not ok when none, and why.
func (d *decider) window() (left int, why Reason, ok bool) {
	r := d.s.Rollout
	ret := r.Returns
	out, left := ret.Outstanding(), ret.Room(r.Policy.Window)
	if m := d.moved(); m.Exact {
		// Counted, less those who never come back: only that share is inferred, with a
		// twentieth for curves that are none of the bank's.
		// Nor is it while a herd is on its way, which fits no curve at all.
		if d.now.Sub(r.LostAt) < r.Policy.ReturnTimeout.D() {
			out = m.Outstanding
		} else {
			out = min(m.Outstanding, out+out/20+1)
		}
		left = min(left, r.Policy.Window-out)
	}
	switch {
	case !ret.Ready():
		return 0, reason(Learning, "waiting: learning how many connections come to %s by themselves, before the first is closed", r.To), false
	case ret.Missing():
		return 0, reason(NotReturning, "waiting: evicted clients are not coming back to %s since %s; %d are on their way", r.To, clock(ret.Short), out), false
	case left <= 0:
		return 0, reason(WindowFull, "waiting: %d evicted clients are on their way, the window is %d", out, r.Policy.Window), false
	}
	return left, Reason{}, true
}

// knows reports whether the totals are no higher than what was observed.
func (r Returns) knows(evicted, accepted uint64) bool {
	return evicted <= r.SawEvicted && accepted <= r.SawAccepted
}
