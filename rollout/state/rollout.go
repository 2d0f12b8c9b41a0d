package state

import (
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// Rollout is one promotion on its way. From drains, To gets the new connections:
// To is the target, From the old side. An abort swaps them.
type Rollout struct {
	ID string `json:"id"`
	// Invariant: From and To are the two colours; To is the live one if, and only
	// if, the rollout is Aborting.
	From     discovery.Colour `json:"from"`
	To       discovery.Colour `json:"to"`
	Phase    Phase            `json:"phase"`
	Aborting bool             `json:"aborting,omitempty"`
	Paused   bool             `json:"paused,omitempty"`
	Forced   bool             `json:"forced,omitempty"`
	Policy   policy.Policy    `json:"policy"`
	// Overrides are what was asked for beside the configured policy; Policy has them.
	Overrides policy.Overrides `json:"overrides,omitzero"`
	Started   time.Time        `json:"started"`
	// Since is when the phase began.
	Since time.Time `json:"since"`
	// Settled is when what the phase waits for first was complete: in Shifting
	// and Confirming every proxy's acknowledgement, in Draining the closed gates.
	// Zero before.
	Settled time.Time `json:"settled,omitzero"`
	// Weight is To's share of new connections while Opening and Shifting;
	// afterwards To has them all. Invariant: between 0 and units.Whole.
	Weight units.Share `json:"weight,omitempty"`

	Steps
	Toll
	Batches

	// Red is since when a gate has been closed; zero while all are open.
	Red time.Time `json:"red,omitzero"`
	// LeftBehind names proxies and instances that the rollout no longer waits for.
	LeftBehind []string `json:"left_behind,omitempty"`
	// Events are its history, oldest first. Invariant: at most eventsKept.
	Events []Event `json:"events,omitempty"`
	// Omitted is how many events in the middle are not remembered.
	Omitted int `json:"omitted,omitempty"`
}

// Old reports whether the rollout has the member let its connections go.
func (r *Rollout) Old(m Member) bool {
	return !m.Fresh && (m.Colour == r.From || m.Outgoing)
}

// Takes reports whether the rollout sends the member new connections: it is one of
// the target's.
func (r *Rollout) Takes(m Member) bool {
	return m.Colour == r.To && !m.Outgoing
}

// Uncovered is how many of those that were let go cannot be back, since the target
// accepted fewer since the funnel started, whoever these were.
func (r *Rollout) Uncovered(m Moved) int {
	gone := m.Gone()
	return int(gone - min(gone, r.Toll.Accepted))
}

// Steps is how the funnel goes. The zero value is a funnel that has not begun.
type Steps struct {
	// Step counts orders within the epoch; StepAt is the earliest time of the next,
	// and OrderedAt when the last that closes connections was given. StepAt is kept
	// when the epoch changes: the cap holds across it.
	Step      uint64    `json:"step"`
	StepAt    time.Time `json:"step_at,omitzero"`
	OrderedAt time.Time `json:"ordered_at,omitzero"`
	// Pace is how the pace follows the target.
	Pace Pace `json:"pace,omitzero"`
	// Cap is the most that the last step may close, by the cap of then.
	Cap int `json:"cap,omitempty"`
	// Given is what the last step was allowed. Invariant: between 0 and Cap.
	Given Allowance `json:"given,omitzero"`
	// Spent is what the last step gave to processes that are no more: they may have
	// closed it all, so it counts in the cap like what the others were given.
	Spent []Spent `json:"spent,omitempty"`
}

// TurnedRound is the funnel when a rollout goes back: steps are counted from 0 in the
// new epoch, and the next may begin no earlier.
func (s Steps) TurnedRound() Steps {
	return Steps{StepAt: s.StepAt, OrderedAt: s.OrderedAt, Cap: s.Cap, Given: s.Given} // StepAt is a whole step later than what was spent
}

// Spent is the share of a process that is no more, as in Quota.
type Spent struct {
	Share int            `json:"share,omitempty"`
	Start units.Duration `json:"start,omitempty"`
}

// Batches is how a staggered rollout goes. The zero value is one before its first
// batch, or without stagger.
type Batches struct {
	// Batch counts the batches that were begun; Turned is when the last was begun,
	// and BatchAt when it was done, zero while it drains.
	Batch   int       `json:"batch,omitempty"`
	Turned  time.Time `json:"turned,omitzero"`
	BatchAt time.Time `json:"batch_at,omitzero"`
	// Spill: in place, the target is full and new connections go to old instances
	// whose turn has not come.
	Spill bool `json:"spill,omitempty"`
}
