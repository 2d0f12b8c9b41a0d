package rollout

import (
	"math"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
)

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

// minRefusals is how many refusals slow a funnel down: fewer may be anybody's.
const minRefusals = 3

// refusedInAll is how many connections the service has refused.
func refusedInAll(s *situation) (n uint64) {
	for _, c := range discovery.Colours {
		told := uint64(0)
		for _, f := range s.members().colour[c] {
			told += s.seen.Instances[f.key].Status.Refused
		}
		n += max(told, s.seen.Witnesses[c].Refused)
	}
	return n
}

// beginRefusals measures what was refused until now, when the funnel starts.
func beginRefusals(t *turn) {
	r := t.rollout()
	if since := r.Refusals.Since; !since.IsZero() {
		r.Refusals.Before = float64(grown(r.Refusals.Was, refusedInAll(t.situation))) / max(1, t.now.Sub(since).Seconds())
	}
	r.Refusals.Seen = t.seen.Witnesses[r.To].Refused
}

// tallyRefusals takes over what the proxies' counters say.
func tallyRefusals(t *turn) {
	r := t.state.Rollout
	next := r.Refusals
	if w, ok := t.seen.Witnesses[r.To]; ok && w.Refused != next.Seen {
		next.Proxied, next.Seen = next.Proxied+grown(next.Seen, w.Refused), w.Refused
	}
	if refused := max(next.Told, next.Proxied, r.Toll.Refused); next != r.Refusals || refused != r.Toll.Refused {
		t.rollout().Refusals = next
		t.rollout().Toll.Refused = refused
	}
}

// turnedRound is what is known when a rollout goes back: what was usual before.
func (r Refusals) turnedRound() Refusals { return Refusals{Before: r.Before} }

// usual is how many refusals there may be in a time for the reasons of before.
func (r Refusals) usual(in time.Duration) uint64 {
	n := r.Before * in.Seconds()
	return uint64(math.Ceil(n + 3*math.Sqrt(n)))
}
