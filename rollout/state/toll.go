package state

import (
	"encoding/json"
	"math"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/returns"
)

// Toll is what happened to clients.
type Toll struct {
	// Total is what From held when the funnel started; 0 before.
	Total int `json:"total,omitempty"`
	// RefusedBefore is how many connections a second From refused before it drained.
	// Invariant: not below 0.
	RefusedBefore float64 `json:"refused_before,omitempty"`
	// Totals are the sums of members that are not Counted any more: forgotten ones,
	// and all of them before an abort.
	observed.Totals
	// Basis is what clients that return are counted by; empty before the funnel started.
	Basis Basis `json:"basis,omitempty"`
	// Surplus is since when more clients return than were let go; zero while no more do.
	Surplus time.Time `json:"surplus,omitzero"`
	// Lost is the sum of connections that died with forgotten members.
	Lost int `json:"lost,omitempty"`
	// Owed is how many clients of the rollout that this one superseded were on their
	// way when it began.
	Owed int `json:"owed,omitempty"`
	// Marks is when how many had been evicted or lost, back to the return timeout,
	// and NeverBack how many are no longer waited for since they were away longer.
	// Invariant: Gone never falls from one mark to the next.
	Marks     []Mark `json:"marks,omitempty"`
	NeverBack int    `json:"never_back,omitempty"`
	// Outstanding is who is on his way for certain.
	Outstanding Outstanding `json:"outstanding,omitzero"`
	// Admissions are what the target admitted and refused since the funnel started,
	// and Flow what they were when it was last looked at for refusals.
	observed.Admissions
	Flow Flow `json:"flow,omitzero"`
	// Refusals is whose word the refused ones are by.
	Refusals Refusals `json:"refusals,omitzero"`
	// Returns tells how many evicted clients are on their way; nil before the
	// funnel starts, and where the application tells returns.
	Returns *returns.Estimate `json:"returns,omitempty"`
}

// TurnedRound is the toll when a rollout goes back: what was done to clients stays;
// what is known of the target is of another one.
func (t Toll) TurnedRound() Toll {
	return Toll{
		Totals: t.Totals, Lost: t.Lost, Owed: t.Owed,
		Marks: t.Marks, NeverBack: t.NeverBack, Basis: t.Basis.Inherited(), Refusals: t.Refusals.turnedRound(),
	}
}

// Basis is what clients that come back are counted by, the surest first. Within a
// rollout it only falls: what was doubted once is not believed again. Empty is not
// judged yet, and as good as the target's words.
type Basis string

// OrBelow is the less sure one of both.
func (b Basis) OrBelow(other Basis) Basis {
	return bases[max(slices.Index(bases, b), slices.Index(bases, other))]
}

// Counted reports whether clients on their way are counted and not inferred.
func (b Basis) Counted() bool { return b == ByTickets || b == ByReturns }

// Inherited is the basis of what follows at once: who returns then was let go before,
// so that own returns cannot be judged anew.
func (b Basis) Inherited() Basis {
	if b == ByReturns {
		return b
	}
	return ""
}

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

// Moved is what a rollout has done to clients so far.
type Moved struct {
	// Evicted were closed by the funnel, Lost died with their instance, Returned
	// were seen again on the target.
	Evicted, Lost, Returned uint64
	// By is what they are counted by. Exact: every client that was let go brings a
	// ticket when it returns; otherwise Returned and Outstanding are estimated.
	By    Basis
	Exact bool
	// Outstanding is how many evicted or lost clients are on their way, and
	// NeverBack how many are no longer waited for; that is 0 unless it is exact.
	Outstanding, NeverBack int
	// AtLeast is how many are on their way for certain, AtMost what they hardly ever
	// exceed; both are Outstanding where it is exact.
	AtLeast, AtMost int
	// Known: Returned and Outstanding can be told at all.
	Known bool

	// Told is how many clients the target's instances say have returned, who may not all
	// have been let go.
	Told uint64
}

// About is put before a number that is not exact.
func (m Moved) About() string {
	if m.Exact {
		return ""
	}
	return "about "
}

// Gone is how many clients were let go, or lost their instance.
func (m Moved) Gone() uint64 { return m.Evicted + m.Lost }

// Flow is what the target had admitted and refused by a moment.
type Flow struct {
	At time.Time
	observed.Admissions
}

func (f Flow) MarshalJSON() ([]byte, error) {
	return json.Marshal(flowKeys{f.At, f.Accepted, f.Refused})
}

func (f *Flow) UnmarshalJSON(data []byte) error {
	var keys flowKeys
	err := json.Unmarshal(data, &keys)
	*f = Flow{keys.At, observed.Admissions{Accepted: keys.Accepted, Refused: keys.Refused}}
	return err
}

// flowKeys are the keys of a stored Flow, which are older than Admissions' own.
type flowKeys struct {
	At                time.Time
	Accepted, Refused uint64
}

// Refusals is how many new connections the target refused since the funnel started, by
// its own word and by the proxies' counters, and how many the service refused before: it
// may be that many now for the same reasons. An answer of the application, whatever its
// code but 503, is no refusal.
type Refusals struct {
	// Told is by the instances' own word, Proxied by the counters of the proxies, and
	// Seen what those were when they were last taken over.
	Told    uint64 `json:"told,omitempty"`
	Proxied uint64 `json:"proxied,omitempty"`
	Seen    uint64 `json:"seen,omitempty"`
	// Before is how many a second were refused from Since until the funnel started, when
	// there had been so many in all.
	Before float64   `json:"before,omitempty"`
	Since  time.Time `json:"since,omitzero"`
	Was    uint64    `json:"was,omitempty"`
}

// turnedRound is what is known when a rollout goes back: what was usual before.
func (r Refusals) turnedRound() Refusals { return Refusals{Before: r.Before} }

// Usual is how many refusals there may be in a time for the reasons of before.
func (r Refusals) Usual(in time.Duration) uint64 {
	n := r.Before * in.Seconds()
	return uint64(math.Ceil(n + 3*math.Sqrt(n)))
}

// minRefusals is how many refusals slow a funnel down: fewer may be anybody's.
const minRefusals = 3
