package rollout

import (
	"fmt"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/returns"
	"github.com/sluice-proxy/sluice/rollout/state"
)

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
func told(s *situation, key discovery.InstanceID, m state.Member) state.Basis {
	sight := s.seen.Instances[key]
	switch st := sight.Status; {
	case m.Drain == "":
		return state.ByAccepted
	case sight.At.IsZero():
		return ""
	case st.Ticketed != nil:
		return state.ByTickets
	case st.Returned != nil:
		return state.ByReturns
	}
	return state.ByAccepted
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
	gone := m.Gone() + uint64(r.Owed) + t.unreportedCloses()
	switch {
	case by == state.ByReturns && r.Basis != state.ByReturns && !noOwnReturns(t.situation):
		by = state.ByExcess
		if r.Basis != "" {
			why = fewerTell
		}
	case by == state.ByReturns && (m.Told > gone+unsaid(t.situation) || followSurplus(t, m.Told > gone)):
		by, why = state.ByExcess, "more clients return to %s than were let go: some come by themselves, and those on their way are estimated from now on"
	case by == state.ByTickets && followSurplus(t, m.Told > gone+unsaid(t.situation)):
		by, why = state.ByAccepted, "more clients bring a ticket to %s than were let go, which is not believed: those on their way are estimated from now on"
	case by != state.ByAccepted && m.Told == 0 && contradicts(t.situation, m):
		by, why = state.ByAccepted, "%s accepted as many as were let go and says of none that it returns, which is not believed: those on their way are estimated from now on"
	case r.Basis != "" && by != r.Basis:
		why = fewerTell
	}
	if by == r.Basis {
		return
	}
	t.rollout().Basis = by
	if why == "" || by.Counted() {
		return
	}
	t.note(fmt.Sprintf(why, r.To))
	o := returns.Observation{Now: t.now, Evicted: gone - uint64(m.AtLeast), AsOf: t.admissionsAsOf(), Accepted: r.Accepted}
	if by == state.ByExcess {
		o.Accepted = m.Told
	}
	t.rollout().Returns = new(returns.New(r.Policy.ReturnTimeout.D()).Observe(o))
}

// followSurplus remembers since when more clients return than were let go, and reports
// whether that has lasted for doubtAfter: for a moment it is those of an instance of whose
// end nobody knows yet, then clients that come by themselves.
func followSurplus(t *turn, more bool) (lasts bool) {
	switch since := t.state.Rollout.Surplus; {
	case more && since.IsZero():
		t.rollout().Surplus = t.now
	case !more && !since.IsZero():
		t.rollout().Surplus = time.Time{}
	case more:
		return t.now.Sub(since) >= doubtAfter
	}
	return false
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
func contradicts(s *situation, m state.Moved) bool {
	r := s.state.Rollout
	if r.Uncovered(m) > 0 {
		return false
	}
	return slices.ContainsFunc(r.Marks, func(mark state.Mark) bool {
		return mark.Gone >= doubtFrom && s.now.Sub(mark.At) >= doubtAfter
	})
}
