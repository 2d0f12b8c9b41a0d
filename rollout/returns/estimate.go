// Package returns estimates how many evicted clients are on their way back, from what
// two totals tell: what was evicted, and what the target accepted.
package returns

import (
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/rollout/units"
)

// Measuring is how long the organic rate is measured before the first close.
const Measuring = 10 * time.Second

// Estimate is what is known of the evicted clients that are on their way, inferred
// from two totals only: the connections evicted, and those that the target accepted.
// Returning clients and organic ones are one sum there, so outstanding clients cannot
// be counted; but they can be inferred, because an evicted client comes back after some
// time or never does, and the organic rate drifts slowly.
//
// It is a bank of Kalman filters (multiple model estimation; bank names the sources).
// Each filter believes in one return curve, learns the organic rate and the share of
// clients that comes back at all, and is weighed by how well it foresees what the
// target accepts. Outstanding and AtMost are high quantiles over the filters and not
// their mean, so as long as nothing is known nearly every evicted client is on its way:
// the first closes, up to the window, are the probe.
//
// When far fewer connections are accepted than any credible filter foresees, the
// target refuses clients, and they are missing: a shortfall. No client counts as
// returned then, nothing is learned, and those on their way begin anew when it is
// over. Where they then come at once, those beyond what was foreseen, and beyond the
// organic connections that may have been refused meanwhile, count as returned.
//
// How a step calls it, once the gates of the old side are closed and a window is set:
//
//	r := returns.New(timeout)        // once
//	r = r.Observe(observation)       // twice a second, and before a step
//	if !r.Ready() { wait: how many connections come by themselves is being measured }
//	if r.Missing() { close nothing: evicted clients are not coming back }
//	n := r.Room(window, most, every) // closes of the next step; none: look again at the next observation
//	if r.Stops(window, left, rest) { close no more of this step, and begin another }
//
// An Estimate is a value: no exported method changes what it was called on. It reads
// no clock, and its JSON stays below 7 KB. The zero value is not whole: use New.
type Estimate struct {
	// Timeout is how long missing clients are waited for before they are never back:
	// the policy's ReturnTimeout.
	Timeout units.Duration `json:"timeout"`
	// Seen is the moment of the newest observation. AsOf is the moment of the newest
	// accepted total, Since that of the first, and At the end of the last spell that
	// was weighed: a spell is what happened between two observations, or more of them.
	// Since ≤ At ≤ AsOf.
	Seen  time.Time `json:"seen,omitzero"`
	AsOf  time.Time `json:"as_of,omitzero"`
	Since time.Time `json:"since,omitzero"`
	At    time.Time `json:"at,omitzero"`
	// Evicted and Accepted count connections since the first observation;
	// WeighedEvicted ≤ Evicted and WeighedAccepted ≤ Accepted are what they were by At.
	Evicted         uint64 `json:"evicted"`
	Accepted        uint64 `json:"accepted"`
	WeighedEvicted  uint64 `json:"weighed_evicted"`
	WeighedAccepted uint64 `json:"weighed_accepted"`
	// SawEvicted and SawAccepted are the highest totals that were observed.
	SawEvicted  uint64 `json:"saw_evicted"`
	SawAccepted uint64 `json:"saw_accepted"`
	// Marks is what Evicted was at the newest observations, back to At.
	Marks []Mark `json:"marks"`
	// EvictionRate is how many clients per second were evicted in the last spell.
	EvictionRate float64 `json:"rate,omitempty"`
	// Doubt: in the spell that is not weighed yet clients seem to be missing.
	Doubt bool `json:"doubt,omitempty"`
	// Short is the moment since which clients are missing; zero while they are not.
	// Nothing is learned before LearnAt.
	Short   time.Time `json:"short,omitzero"`
	LearnAt time.Time `json:"learn_at,omitzero"`
	// GaveUp is when it was last asked whether missing clients are never back, and
	// GaveUpAccepted what Accepted was then.
	GaveUp         time.Time `json:"gave_up,omitzero"`
	GaveUpAccepted uint64    `json:"heard,omitempty"`
	// RefusedOrganic is how many organic connections may have been refused while
	// clients were missing: they come when the clients do and were never evicted.
	RefusedOrganic float64 `json:"waits,omitempty"`
	// Filters is the bank, in the order of curves.
	Filters bank `json:"filters"`
}

// Mark is how many clients were evicted or lost by a moment.
type Mark struct {
	At   time.Time `json:"at"`
	Gone uint64    `json:"gone"`
}

// New is an estimate that knows nothing yet; timeout is the policy's ReturnTimeout.
func New(timeout time.Duration) Estimate {
	return Estimate{Timeout: units.Duration(timeout), Filters: newBank()}
}

// Whole reports whether the estimate is one that New and Observe can have made.
func (r Estimate) Whole() bool {
	return r.Filters.whole() && len(r.Marks) > 0 && r.WeighedEvicted <= r.Evicted && r.WeighedAccepted <= r.Accepted
}

// Ready reports whether the first connection may be closed: when the organic rate has
// been measured for Measuring, 10 s.
func (r Estimate) Ready() bool {
	return !r.Since.IsZero() && r.At.Sub(r.Since) >= Measuring
}

// Missing reports whether evicted clients are not coming back: the target accepts far
// fewer connections, organic ones included, than if they came back as they did before;
// or hardly half of them come back at all.
func (r Estimate) Missing() bool { return !r.Short.IsZero() }

// Observation is both totals at a moment. Where the totals begin does not matter, only
// how they rise; one below what it was adds nothing until it is above it again.
type Observation struct {
	// Evicted is how many clients have been evicted by Now: every close that an order
	// may have brought about, also one that was not reported yet.
	Now     time.Time
	Evicted uint64
	// Accepted is how many connections the target had accepted by AsOf, a moment ago:
	// it takes a while until a count is heard of.
	AsOf     time.Time
	Accepted uint64
}

// Observe is the estimate that knows the observation, too. Observations may come at
// any distance; one that is older than the last changes no moment.
func (r Estimate) Observe(t Observation) Estimate {
	if r.Since.IsZero() {
		r.Seen, r.AsOf, r.Since, r.At = t.Now, t.AsOf, t.AsOf, t.AsOf
		r.SawEvicted, r.SawAccepted = t.Evicted, t.Accepted
		r.Marks = []Mark{{At: t.Now}}
		return r
	}
	r.Filters, r.Marks = slices.Clone(r.Filters), slices.Clone(r.Marks)
	r.Seen, r.AsOf = latest(r.Seen, t.Now), latest(r.AsOf, t.AsOf)
	r.Evicted += max(t.Evicted, r.SawEvicted) - r.SawEvicted
	r.Accepted += max(t.Accepted, r.SawAccepted) - r.SawAccepted
	r.SawEvicted, r.SawAccepted = max(t.Evicted, r.SawEvicted), max(t.Accepted, r.SawAccepted)
	r.Marks = append(r.Marks, Mark{At: r.Seen, Gone: r.Evicted})
	if r.AsOf.Sub(r.At) >= minSpell {
		r.endSpell()
	}
	return r
}

// Knows reports whether neither total of the observation is higher than what was observed.
func (r Estimate) Knows(t Observation) bool {
	return t.Evicted <= r.SawEvicted && t.Accepted <= r.SawAccepted
}

// evictedBy is how many clients had been evicted by a moment: closes are spread evenly
// between two observations.
func (r Estimate) evictedBy(at time.Time) uint64 {
	k := len(r.Marks) - 1
	for k > 0 && !r.Marks[k-1].At.Before(at) {
		k--
	}
	b := r.Marks[k]
	if k == 0 || !at.Before(b.At) {
		return b.Gone
	}
	a := r.Marks[k-1]
	return a.Gone + uint64(float64(b.Gone-a.Gone)*float64(at.Sub(a.At))/float64(b.At.Sub(a.At)))
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Dated is the estimate with every moment in it moved. A zero one stays.
func (r Estimate) Dated(move func(time.Time) time.Time) Estimate {
	r.Marks = slices.Clone(r.Marks)
	all := []*time.Time{&r.Seen, &r.AsOf, &r.Since, &r.At, &r.Short, &r.LearnAt, &r.GaveUp}
	for i := range r.Marks {
		all = append(all, &r.Marks[i].At)
	}
	for _, at := range all {
		if !at.IsZero() {
			*at = move(*at)
		}
	}
	return r
}
