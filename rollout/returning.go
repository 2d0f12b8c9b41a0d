package rollout

import (
	"time"

	"github.com/sluice-proxy/sluice/rollout/returns"
)

// observing is how often what returned is observed while something depends on it.
const observing = 500 * time.Millisecond

// stale is the age from which a count is no younger than that: whoever does not
// answer any more does not hold up the time of those who do.
const stale = 2 * time.Second

// track keeps the estimate of who is on his way up to date: twice a second where a
// decision depends on it, else when asked to. Where the application tells returns
// there is nothing to estimate.
func (d *decider) track(asked bool) {
	r := d.s.Rollout
	m := d.moved()
	if m.Exact {
		d.wakeBy(d.now.Add(observing))
		return
	}
	next, t := r.Returns, returns.Observation{Now: d.now, Evicted: m.gone() + d.due(), AsOf: d.acceptedBy(), Accepted: r.Accepted}
	if next == nil {
		next = new(returns.New(r.Policy.ReturnTimeout.D()).Observe(t))
	}
	t.Evicted += uint64(r.Owed) // those left just now, if it is the first time
	if due := next.Seen.Add(observing); r.Returns != nil && d.now.Before(due) && (!asked || next.Knows(t)) {
		d.wakeBy(due)
		return
	}
	d.touch()
	d.s.Rollout.Returns = new(next.Observe(t))
	d.wakeBy(d.now.Add(observing))
}

// overruns reports whether the running step would take more room or window than
// there is by now.
func (d *decider) overruns() bool {
	r := d.s.Rollout
	if room, known := d.room(); known && room < 0 {
		return true
	}
	if r.Policy.Window == 0 || r.Returns == nil || d.moved().Exact {
		return false
	}
	rest := r.StepAt.Sub(d.now)
	left := int(float64(r.Given.Close) * min(1, rest.Seconds()/r.Policy.Funnel.Every.D().Seconds()))
	return r.Returns.Stops(r.Policy.Window, left, rest)
}

// due is how many connections have been closed by the running step and were not
// reported yet, if each instance does what it was told.
func (d *decider) due() (n uint64) {
	r := d.s.Rollout
	for key, m := range d.s.Members {
		if sight := d.seen.Instances[key]; m.Counted && m.Ceiling != nil && m.Share > 0 {
			closed := func(at time.Time) int {
				return m.closed(at.Sub(r.OrderedAt), r.Policy.Funnel.Every.D())
			}
			n += uint64(closed(d.now) - closed(sight.At))
		}
	}
	return n
}

// closed is how many connections the member has let go so long after a step was
// ordered.
func (m Member) closed(after, every time.Duration) int {
	if after < m.Start.D() {
		return 0
	}
	return min(m.Share, 1+int((after-m.Start.D())*time.Duration(m.Share)/every))
}

// acceptedBy is the moment by which so many were accepted as is known: the mean of
// when the instances of the side that takes over were counted. It is exact while
// each accepts at an even rate, all about as many.
func (d *decider) acceptedBy() time.Time {
	age, n := time.Duration(0), time.Duration(0)
	for _, key := range d.news() {
		m, at := d.s.Members[key], d.seen.Instances[key].At
		if m.Drain == "" {
			load, _ := d.load(m)
			at = load.At
		}
		if m.Counted {
			age, n = age+min(stale, max(0, d.now.Sub(at))), n+1
		}
	}
	return d.now.Add(-age / max(1, n))
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
	switch left = ret.Room(r.Policy.Window, d.limit(), r.Policy.Funnel.Every.D()); {
	case !ret.Ready():
		return 0, reason(Learning, "waiting: learning how many connections come to %s by themselves, before the first is closed", r.To), false
	case ret.Missing():
		return 0, reason(NotReturning, "waiting: evicted clients are not coming back to %s since %s; about %d are on their way", r.To, clock(ret.Short), m.Outstanding), false
	case ret.Doubt:
		return 0, reason(NotReturning, "waiting: fewer clients come back to %s than a moment ago; about %d are on their way", r.To, m.Outstanding), false
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
