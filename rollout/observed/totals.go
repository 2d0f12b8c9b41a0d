package observed

import (
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// Totals is how many connections were evicted, and how many clients returned: as the
// application says, and by their tickets.
type Totals struct {
	Evicted  uint64 `json:"evicted,omitempty"`
	Returned uint64 `json:"returned,omitempty"`
	Ticketed uint64 `json:"ticketed,omitempty"`
}

// Plus is the sum of both.
func (n Totals) Plus(more Totals) Totals {
	return Totals{n.Evicted + more.Evicted, n.Returned + more.Returned, n.Ticketed + more.Ticketed}
}

// After is how far the totals rose.
func (n Totals) After(was Totals) Totals {
	return Totals{Risen(was.Evicted, n.Evicted), Risen(was.Returned, n.Returned), Risen(was.Ticketed, n.Ticketed)}
}

// Admissions is how many new connections were accepted and how many refused, in all.
// A total that fell began anew.
type Admissions struct {
	Accepted uint64 `json:"accepted,omitempty"`
	Refused  uint64 `json:"refused,omitempty"`
}

// After is how many there were after was.
func (a Admissions) After(was Admissions) Admissions {
	return Admissions{Grown(was.Accepted, a.Accepted), Grown(was.Refused, a.Refused)}
}

// TotalsOf are those of a status; what it does not say is 0.
func TotalsOf(s contract.Status) Totals {
	n := Totals{Evicted: s.Evicted}
	if s.Returned != nil {
		n.Returned = *s.Returned
	}
	if s.Ticketed != nil {
		n.Ticketed = *s.Ticketed
	}
	return n
}

// Risen is how far a total rose; one that fell is of another process.
func Risen(was, is uint64) uint64 {
	if is < was {
		return 0
	}
	return is - was
}

// Grown is how far a total rose; one that fell began anew.
func Grown(was, is uint64) uint64 {
	if is < was {
		return is
	}
	return is - was
}
