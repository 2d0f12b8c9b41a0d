package state

import (
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/policy"
)

// Event is one line of a rollout's history.
type Event struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

// HistoryKept is how many finished rollouts a state remembers.
const HistoryKept = 20

// eventsKept is how many events a rollout remembers: the first half, and the
// newest of the others.
const eventsKept = 200

func (r *Rollout) Note(at time.Time, text string) {
	r.Events = append(r.Events, Event{At: at, Text: text})
	if len(r.Events) > eventsKept {
		r.Events = slices.Delete(r.Events, eventsKept/2, eventsKept/2+1)
		r.Omitted++
	}
}

// Outcome is how a rollout ended.
type Outcome string

const (
	Done       Outcome = "done"
	Aborted    Outcome = "aborted"
	Superseded Outcome = "superseded" // by the promotion of a newer release
	// Adopted: no state was stored, and To was found, or said, to be the live colour.
	// Nothing was moved.
	Adopted Outcome = "adopted"
)

// Record is a finished rollout. From and To are as it was asked for, also when it
// was aborted and ended where it began.
type Record struct {
	ID      string           `json:"id"`
	From    discovery.Colour `json:"from"`
	To      discovery.Colour `json:"to"`
	Outcome Outcome          `json:"outcome"`
	Forced  bool             `json:"forced,omitempty"`
	// Overrides are what was asked for beside the configured policy, to ask for it again.
	Overrides policy.Overrides `json:"overrides,omitzero"`
	Started   time.Time        `json:"started"`
	Ended     time.Time        `json:"ended"`
	Evicted   uint64           `json:"evicted"`
	// Lost is how many connections ended because their instance died.
	Lost int `json:"lost,omitempty"`
	// Returned and NeverBack are nil where nobody can tell; Estimated: Returned is
	// inferred from what the target admitted. NotBack is how many were not back in the
	// end for certain, where NeverBack is not known: the target accepted fewer
	// connections than were let go.
	Returned   *uint64  `json:"returned"`
	NeverBack  *uint64  `json:"never_back"`
	NotBack    uint64   `json:"not_back,omitempty"`
	Estimated  bool     `json:"estimated,omitempty"`
	LeftBehind []string `json:"left_behind,omitempty"`
	Events     []Event  `json:"events,omitempty"`
	Omitted    int      `json:"omitted,omitempty"`
}

// Ended is the rollout as it is remembered once it ended.
func (r *Rollout) Ended(how Outcome, moved Moved, now time.Time) Record {
	rec := Record{
		ID: r.ID, From: r.From, To: r.To, Outcome: how, Forced: r.Forced, Overrides: r.Overrides, Started: r.Started, Ended: now,
		Evicted: moved.Evicted, Lost: int(moved.Lost), LeftBehind: r.LeftBehind, Events: r.Events, Omitted: r.Omitted,
	}
	if moved.Known {
		rec.Returned, rec.Estimated = &moved.Returned, !moved.Exact
	}
	switch {
	case how == Superseded:
	case moved.Exact:
		rec.NeverBack = new(min(moved.Gone(), uint64(moved.Outstanding+moved.NeverBack)))
	default:
		rec.NotBack = uint64(r.Uncovered(moved))
	}
	if r.Aborting {
		rec.From, rec.To = r.To, r.From
		if how == Done {
			rec.Outcome = Aborted
		}
	}
	return rec
}
