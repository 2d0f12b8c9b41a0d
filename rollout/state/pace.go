package state

import (
	"fmt"
	"time"

	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// Pace is how the funnel follows the target: halved when the target refuses, answers
// slowly or loses instances, raised by a tenth of the cap with each good step, never
// above the cap. It stands still when the target refuses everybody, or is sick at the
// smallest pace, until an interval in which it refuses nobody.
type Pace struct {
	// Limit is the most closes of a step; 0 is the cap.
	Limit int `json:"limit,omitempty"`
	// Stopped: nothing is closed until the target refuses nobody for an interval.
	Stopped bool `json:"stopped,omitempty"`
	// Why it is below the cap.
	Why string `json:"why,omitempty"`
	// Admissions are the rollout's totals, and Open the number of open instances,
	// when it was judged last.
	observed.Admissions
	Open int `json:"open,omitempty"`
}

// Next is the pace of the step after the vitals were taken. Pure.
func (p Pace) Next(limit int, v Vitals) Pace {
	in := v.After(p.Admissions)
	if in.Refused -= min(in.Refused, v.Usual); in.Refused < minRefusals {
		in.Refused = 0
	}
	now := p.Limit
	if now == 0 || now > limit {
		now = limit
	}
	bad := ""
	switch {
	case v.Open < p.Open:
		bad = fmt.Sprintf("%d of %d instances are left", v.Open, p.Open)
	case in.Refused > 0 && in.Refused*refusals > in.Accepted+in.Refused:
		bad = fmt.Sprintf("%d of %d new connections were refused", in.Refused, in.Accepted+in.Refused)
	case v.Bound > 0 && v.Slow > v.Bound:
		bad = fmt.Sprintf("handshakes take %s, above %s", units.Duration(v.Slow.Round(time.Millisecond)), units.Duration(v.Bound))
	}
	next := Pace{Limit: now + max(1, limit/10), Why: p.Why, Admissions: v.Admissions, Open: v.Open}
	switch everything := in.Refused > 0 && in.Accepted == 0; {
	case everything || bad != "" && (p.Stopped || now == 1):
		next.Limit, next.Why, next.Stopped = 1, bad, true
	case bad != "":
		next.Limit, next.Why = max(1, now/2), bad
	case p.Stopped:
		next.Limit = 1
	}
	if next.Limit >= limit && !next.Stopped {
		next.Limit, next.Why = 0, ""
	}
	return next
}

// Of is the most closes of a step under limit, and why it is fewer.
func (p Pace) Of(limit int) (int, string) {
	if p.Stopped {
		return 0, p.Why
	}
	if p.Limit == 0 || p.Limit >= limit {
		return limit, ""
	}
	return p.Limit, p.Why
}

// Allowance is how many connections a step may close, and why it is fewer than the
// limit; empty when it is not.
type Allowance struct {
	Close int    `json:"close,omitempty"`
	Why   string `json:"why,omitempty"`
}

// Vitals is how the target fares.
type Vitals struct {
	observed.Admissions     // totals of the rollout
	Open                int // instances that take new connections
	// Slow is the 99th percentile of handshakes, the slowest instance's, and Bound
	// what it may be; 0 is not known, and no bound.
	Slow, Bound time.Duration
	// Usual is how many refusals there may be for the reasons of before the funnel.
	Usual uint64
}

// refusals is the share of new connections that may be refused without slowing
// down: one in so many.
const refusals = 100
