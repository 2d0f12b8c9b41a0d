package rollout

import "time"

// observing is how often what returned is observed while something depends on it.
const observing = time.Second

// track keeps the estimate of who is on his way up to date: each second where a
// decision depends on it, else when asked to. Where the application tells
// returns there is nothing to estimate.
func (d *decider) track(asked bool) {
	r := d.s.Rollout
	m := d.moved()
	if m.Exact {
		d.wakeBy(d.now.Add(observing))
		return
	}
	gone := m.gone() + uint64(r.Owed)
	next := r.Returns
	if next == nil {
		next = new(NewReturns(r.Policy.ReturnTimeout.D()).Observe(d.now, gone-uint64(r.Owed), r.Accepted)) // the owed left just now
	} else if due := next.Seen.Add(observing); d.now.Before(due) && (!asked || next.knows(gone, r.Accepted)) {
		d.wakeBy(due)
		return
	}
	d.touch()
	d.s.Rollout.Returns = new(next.Observe(d.now, gone, r.Accepted))
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
	m, ret := d.moved(), r.Returns
	if m.Exact {
		if left = r.Policy.Window - m.Outstanding; left <= 0 {
			return 0, d.windowFull(m.Outstanding), false
		}
		return left, Reason{}, true
	}
	switch left = ret.Room(r.Policy.Window); {
	case !ret.Ready():
		return 0, reason(Learning, "waiting: learning how many connections come to %s by themselves, before the first is closed", r.To), false
	case ret.Missing():
		return 0, reason(NotReturning, "waiting: evicted clients are not coming back to %s since %s; about %d are on their way", r.To, clock(ret.Short), m.Outstanding), false
	case left <= 0 && r.Policy.Window < ret.MinWindow():
		return 0, reason(WindowFull, "waiting: about %d evicted clients are on their way, the window is %d; with as many connections as come by themselves the smallest that can be kept is %d", m.Outstanding, r.Policy.Window, ret.MinWindow()), false
	case left <= 0:
		return 0, d.windowFull(m.Outstanding), false
	}
	return left, Reason{}, true
}

func (d *decider) windowFull(out int) Reason {
	return reason(WindowFull, "waiting: %d evicted clients are on their way, the window is %d", out, d.s.Rollout.Policy.Window)
}

// knows reports whether the totals are no higher than what was observed.
func (r Returns) knows(evicted, accepted uint64) bool {
	return evicted <= r.SawEvicted && accepted <= r.SawAccepted
}
