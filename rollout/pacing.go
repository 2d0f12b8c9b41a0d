package rollout

import (
	"fmt"
	"time"

	"github.com/sluice-proxy/sluice/rollout/units"
)

// Pace is how the funnel follows the side that takes over: halved when that side
// refuses, answers slowly or loses instances, raised by a tenth of the cap with
// each good step, never above the cap.
type Pace struct {
	// Limit is the most closes of a step; 0 is the cap.
	Limit int `json:"limit,omitempty"`
	// Why it is below the cap.
	Why string `json:"why,omitempty"`
	// Accepted and Refused are the rollout's totals, and Open the number of open
	// instances, when it was judged last.
	Accepted uint64 `json:"accepted,omitempty"`
	Refused  uint64 `json:"refused,omitempty"`
	Open     int    `json:"open,omitempty"`
}

// vitals is how the side that takes over fares.
type vitals struct {
	accepted, refused uint64 // totals of the rollout
	open              int    // instances that take new connections
	slow, bound       time.Duration
}

// refusals is the share of new connections that may be refused without slowing
// down: one in so many.
const refusals = 100

// next is the pace of the step after the vitals were taken. Pure.
func (p Pace) next(limit int, v vitals) Pace {
	accepted, refused := grown(p.Accepted, v.accepted), grown(p.Refused, v.refused)
	now := p.Limit
	if now == 0 || now > limit {
		now = limit
	}
	bad := ""
	switch {
	case v.open < p.Open:
		bad = fmt.Sprintf("%d of %d instances are left", v.open, p.Open)
	case refused > 0 && refused*refusals > accepted+refused:
		bad = fmt.Sprintf("%d of %d new connections were refused", refused, accepted+refused)
	case v.bound > 0 && v.slow > v.bound:
		bad = fmt.Sprintf("handshakes take %s, above %s", units.Duration(v.slow.Round(time.Millisecond)), units.Duration(v.bound))
	}
	next := Pace{Limit: now + max(1, limit/10), Why: p.Why, Accepted: v.accepted, Refused: v.refused, Open: v.open}
	if bad != "" {
		next.Limit, next.Why = max(1, now/2), bad
	}
	if next.Limit >= limit {
		next.Limit, next.Why = 0, ""
	}
	return next
}

// judge is the pace for the next step.
func (d *decider) judge() Pace {
	r := d.s.Rollout
	v := vitals{accepted: r.Accepted, refused: r.Refused, open: len(d.open(r.To)), bound: r.Policy.Slow.D()}
	for _, key := range d.open(r.To) {
		if ms := d.seen.Instances[key].Status.HandshakeMS; ms != nil {
			v.slow = max(v.slow, time.Duration(*ms)*time.Millisecond)
		}
	}
	v.slow = max(v.slow, d.seen.Witnesses[r.To].ConnectP99)
	return r.Pace.next(d.limit(), v)
}

// adopt makes next the pace of the step that begins now.
func (d *decider) adopt(next Pace) {
	was := d.s.Rollout.Pace
	d.touch()
	r := d.s.Rollout
	r.Pace = next
	switch {
	case next.Limit > 0 && (was.Limit == 0 || next.Limit < was.Limit):
		r.note(d.now, fmt.Sprintf("%s: at most %d every %s", next.Why, next.Limit, r.Policy.Funnel.Every))
	case next.Limit == 0 && was.Limit > 0:
		r.note(d.now, "the pace is "+r.Policy.Funnel.String()+" again")
	}
}

// of is the most closes of a step under limit, and why it is fewer.
func (p Pace) of(limit int) (int, string) {
	if p.Limit == 0 || p.Limit >= limit {
		return limit, ""
	}
	return p.Limit, p.Why
}
