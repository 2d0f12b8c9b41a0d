package rollout

import (
	"fmt"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/returns"
)

// Basis is what clients that come back are counted by, the surest first. Within a
// rollout it only falls: what was doubted once is not believed again. Empty is not
// judged yet, and as good as the target's words.
type Basis string

const (
	// ByTickets: every instance of the target counts tickets, and only who was let go
	// has one.
	ByTickets Basis = "tickets"
	// ByReturns: every one counts returning clients, and before the funnel began none
	// came by itself: those that come now were let go.
	ByReturns Basis = "returns"
	// ByExcess: returning clients come by themselves, too; those beyond their rate were
	// let go.
	ByExcess Basis = "excess"
	// ByAccepted: nobody tells returning clients from new ones; the connections beyond
	// the rate of those that come by themselves were let go.
	ByAccepted Basis = "accepted"
)

var bases = []Basis{"", ByTickets, ByReturns, ByExcess, ByAccepted}

// orBelow is the less sure one of both.
func (b Basis) orBelow(other Basis) Basis {
	return bases[max(slices.Index(bases, b), slices.Index(bases, other))]
}

// counts reports whether clients on their way are counted and not inferred.
func (b Basis) counts() bool { return b == ByTickets || b == ByReturns }

const (
	// quietFor is how long before the funnel no client may have returned by itself, for
	// those that return afterwards to be those that were let go.
	quietFor = returns.Measuring
	// doubtAfter is how long an application may admit clients that were let go and say of
	// none that it returns, and doubtFrom how many.
	doubtAfter = 10 * time.Second
	doubtFrom  = 10
)

// told is what an instance of the target says of returning clients. One that was not
// heard yet lowers nothing.
func told(s *situation, key discovery.InstanceID, m Member) Basis {
	sight := s.seen.Instances[key]
	switch st := sight.Status; {
	case m.Drain == "":
		return ByAccepted
	case sight.At.IsZero():
		return ""
	case st.Ticketed != nil:
		return ByTickets
	case st.Returned != nil:
		return ByReturns
	}
	return ByAccepted
}

// noOwnReturns reports whether it is known that no returning client came to the service for
// quietFor: every old instance counts them, and said so all the time.
func noOwnReturns(s *situation) bool {
	for _, f := range s.members().all {
		sight := s.seen.Instances[f.key]
		switch {
		case f.dead:
		case s.now.Sub(sight.ReturnedAt) < quietFor:
			return false
		case f.old && (sight.Status.Returned == nil || s.now.Sub(sight.Since) < quietFor):
			return false
		}
	}
	return true
}

// fewerTell is the event of a basis that fell because an instance says less.
const fewerTell = "not every instance of %s tells returning clients as before: those on their way are estimated from now on"

// believe judges what the target's words on returning clients are worth. Where they fall
// below what was believed, an estimate begins anew with those that are away for certain.
func believe(t *turn) {
	r, m := t.state.Rollout, t.moved()
	by, why := m.By, ""
	switch {
	case by == ByReturns && r.Basis != ByReturns && !noOwnReturns(t.situation):
		by = ByExcess
		if r.Basis != "" {
			why = fewerTell
		}
	case by == ByReturns && m.told > m.gone()+uint64(r.Owed)+t.unreportedCloses()+unsaid(t.situation):
		by, why = ByExcess, "more clients return to %s than were let go: some come by themselves, and those on their way are estimated from now on"
	case by != ByAccepted && m.told == 0 && contradicts(t.situation, m):
		by, why = ByAccepted, "%s accepted as many as were let go and says of none that it returns, which is not believed: those on their way are estimated from now on"
	case r.Basis != "" && by != r.Basis:
		why = fewerTell
	}
	if by == r.Basis {
		return
	}
	t.rollout().Basis = by
	if why == "" || by.counts() {
		return
	}
	t.note(fmt.Sprintf(why, r.To))
	gone := m.gone() + uint64(r.Owed) + t.unreportedCloses()
	o := returns.Observation{Now: t.now, Evicted: gone - uint64(m.AtLeast), AsOf: t.admissionsAsOf(), Accepted: r.Accepted}
	if by == ByExcess {
		o.Accepted = m.told
	}
	t.rollout().Returns = new(returns.New(r.Policy.ReturnTimeout.D()).Observe(o))
}

// unsaid is how many clients an old instance may have let go and not said so, as one
// that died a moment ago: what the largest holds.
func unsaid(s *situation) uint64 {
	n := 0
	for _, f := range s.members().old {
		n = max(n, f.held)
	}
	return uint64(n)
}

// contradicts reports whether clients that were let go a while ago must have been
// admitted by the target.
func contradicts(s *situation, m Moved) bool {
	r := s.state.Rollout
	if r.uncovered(m) > 0 {
		return false
	}
	return slices.ContainsFunc(r.Marks, func(mark returns.Mark) bool {
		return mark.Gone >= doubtFrom && s.now.Sub(mark.At) >= doubtAfter
	})
}
