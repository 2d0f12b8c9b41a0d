// Package returns estimates how many evicted clients are on their way back, from what
// two totals tell: what was evicted, and what the target accepted.
package returns

import (
	"math"
	"slices"
	"sort"
	"time"

	"github.com/sluice-proxy/sluice/rollout/units"
)

// Returns tells how many evicted clients are on their way, from two totals only:
// the connections evicted, and those that the side that takes over accepted.
// Returning clients and organic ones are one sum there, so what is outstanding
// cannot be counted; but it can be inferred, because an evicted client comes back
// after some time or never does, and the organic rate drifts slowly.
//
// It is a bank of Kalman filters: multiple model estimation, D. T. Magill, IEEE
// Trans. Automatic Control 10 (1965) 434. Each filter believes in one return curve,
// learns the organic rate and the share that comes back at all, and is weighed by
// how well it foresees what is accepted. Outstanding and AtMost are high quantiles
// over the filters and not their mean, so as long as nothing is known nearly everyone
// evicted is on his way: the first closes, up to the window, are the probe.
//
// When far fewer are accepted than any credible filter foresees, green refuses.
// Nobody counts as returned then, nothing is learned, and who was on his way
// begins anew when it is over; that is the shortfall. Where they then come at once,
// those beyond what was foreseen, and beyond the organic ones that may have been
// refused meanwhile, count as returned.
//
// How Step calls it, once the gates of the old side are closed and a window is set:
//
//	r.Returns = new(NewReturns(timeout))             // once
//	r.Returns = new(r.Returns.Observe(totals))       // twice a second, and before a step
//	if !r.Returns.Ready() { wait: how many connections come by themselves is being measured }
//	if r.Returns.Missing() { close nothing: evicted clients are not coming back }
//	n = r.Returns.Room(window, most, every)          // closes of the next step; none: look again at the next observation
//	if r.Returns.Stops(window, left, rest) { close no more of this step, and begin another }
//
// Returns is a value: no method changes what it was called on. It reads no clock,
// and its JSON stays below 7 KB.
type Estimate struct {
	// Timeout is the policy's ReturnTimeout.
	Timeout units.Duration `json:"timeout"`
	// Seen is when it was observed last. AsOf is the moment of the newest accepted
	// total, Since that of the first, and At the end of the last spell that was
	// weighed: a spell is what happened between two observations, or more of them.
	Seen  time.Time `json:"seen,omitzero"`
	AsOf  time.Time `json:"as_of,omitzero"`
	Since time.Time `json:"since,omitzero"`
	At    time.Time `json:"at,omitzero"`
	// Evicted and Accepted count since the first observation; WeighedEvicted and
	// WeighedAccepted are what they were by At.
	Evicted         uint64 `json:"evicted"`
	Accepted        uint64 `json:"accepted"`
	WeighedEvicted  uint64 `json:"weighed_evicted"`
	WeighedAccepted uint64 `json:"weighed_accepted"`
	// SawEvicted and SawAccepted are the highest totals that were observed.
	SawEvicted  uint64 `json:"saw_evicted"`
	SawAccepted uint64 `json:"saw_accepted"`
	// Marks is what Evicted was at the newest observations, back to At.
	Marks []Mark `json:"marks"`
	// Rate is how many were evicted per second in the last spell.
	Rate float64 `json:"rate,omitempty"`
	// Doubt: in the spell that is not weighed yet clients seem to be missing.
	Doubt bool `json:"doubt,omitempty"`
	// Short is since when clients are missing; zero while they are not. Nothing is
	// learned before LearnAt.
	Short   time.Time `json:"short,omitzero"`
	LearnAt time.Time `json:"learn_at,omitzero"`
	// GaveUp is when those missing were last looked for, and Heard what had been
	// accepted by then.
	GaveUp time.Time `json:"gave_up,omitzero"`
	Heard  uint64    `json:"heard,omitempty"`
	// Waits is how many organic connections may have been refused while clients
	// were missing: they come with the herd and are nobody who was evicted.
	Waits float64 `json:"waits,omitempty"`
	// Filters is the bank, in the order of curves.
	Filters []filter `json:"filters"`
}

const (
	// measuring is how long the organic rate is measured before the first close.
	Measuring = 10 * time.Second
	// spell is the shortest time that is weighed.
	spell = 900 * time.Millisecond
	// soon is how long after their closes clients have to come back so that few of
	// them could as well be a count that was misjudged in time.
	soon = 500 * time.Millisecond
	// notices is how long closes go on before it is noticed that nobody comes back.
	notices = 1500 * time.Millisecond
	// Fewer than this part of what was foreseen is few; a spell with few is made
	// longer, to doubt and at most to patience, until it is clear whether clients
	// are missing.
	few      = 0.4
	doubt    = 1900 * time.Millisecond
	patience = 10 * time.Second
	// herd is how long after clients were missing nothing is learned, or so many
	// times the return time if that is longer: they come at once, and organic ones
	// with them, and some of them pass for others. Until those who still count as on
	// their way would be back anyway, curves learned from what comes would be too fast.
	herd    = 10 * time.Second
	settles = 2
	// wandered is how much higher than known the organic rate may be when it was
	// not seen for minutes.
	wandered = 0.2
	// likely and credible are the parts of all weight that Outstanding and AtMost
	// cover. What is credible may exceed the window by leeway: where a window nearly
	// binds, the two could not be told apart without closing less.
	likely   = 0.9
	credible = 0.98
	leeway   = 0.05
	// strain is by how much a window may be exceeded before a step is stopped.
	strain = 0.1
	// vague: Outstanding above so many times what is likely is not known well.
	vague = 2.0
)

// NewReturns begins to estimate; timeout is the policy's ReturnTimeout.
func New(timeout time.Duration) Estimate {
	r := Estimate{Timeout: units.Duration(timeout), Filters: make([]filter, len(curves))}
	for i, c := range curves {
		r.Filters[i] = newFilter(c)
	}
	return r
}

// whole reports whether it is something that NewReturns and Observe made.
func (r Estimate) Whole() bool {
	for i, f := range r.Filters {
		if i >= len(curves) || len(f.Away) != curves[i].stages {
			return false
		}
	}
	return len(r.Filters) == len(curves) && len(r.Marks) > 0 && r.WeighedEvicted <= r.Evicted && r.WeighedAccepted <= r.Accepted
}

// Ready reports whether the first connection may be closed: when the
// organic rate has been measured for 10 s.
func (r Estimate) Ready() bool {
	return !r.Since.IsZero() && r.At.Sub(r.Since) >= Measuring
}

// Missing reports that far fewer connections are accepted than there would be if
// evicted clients came back as they did before, organic ones included; or that
// hardly half of them come back at all.
func (r Estimate) Missing() bool { return !r.Short.IsZero() }

// Totals are what Returns observes. Where they begin does not matter, only how they
// rise; one below what it was adds nothing until it is above it again.
type Observation struct {
	// Evicted is how many have been evicted by Now: every close that an order may
	// have brought about, also one that was not reported yet.
	Now     time.Time
	Evicted uint64
	// Accepted is how many the side that takes over had accepted by AsOf, a moment
	// ago: it takes a while until a count is heard of.
	AsOf     time.Time
	Accepted uint64
}

// Observe adds what is known now. Observations may come at any distance.
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
	if r.AsOf.Sub(r.At) >= spell {
		r.weigh()
	}
	return r
}

// evictedBy is how many had been evicted by a moment: closes are spread evenly
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

// weigh ends the spell, unless it is not clear yet whether clients are missing.
func (r *Estimate) weigh() {
	now, evicted := r.AsOf, max(r.WeighedEvicted, r.evictedBy(r.AsOf))
	took := now.Sub(r.At)
	s := flow{gone: float64(evicted - r.WeighedEvicted), came: float64(r.Accepted - r.WeighedAccepted), dt: took.Seconds()}
	foreseen := r.quantile(1-credible, func(f filter, c curve) float64 {
		if r.Missing() {
			return f.resumes(c, s)
		}
		return f.foresees(c, s)
	})
	rate := s.gone / s.dt
	small := s.came < few*foreseen
	clear := foreseen-s.came > sure(foreseen, max(r.Rate, rate)*r.Back(soon))
	r.Doubt = small && clear && !r.Missing()
	if small && !r.Missing() && (took < doubt || !clear && took < patience) {
		return
	}
	r.At, r.WeighedEvicted, r.WeighedAccepted, r.Rate, r.Doubt = now, evicted, r.Accepted, digits(rate), false
	for len(r.Marks) > 1 && !r.Marks[1].At.After(now) {
		r.Marks = r.Marks[1:]
	}
	share := r.mean(func(f filter, _ curve) float64 { return f.Share })
	r.tell(now, small && clear || share < least+priorSigma/2)
	learn := !now.Before(r.LearnAt)
	switch organic := r.Organic() * s.dt; {
	case r.Missing():
		r.Waits = digits(r.Waits + max(0, (1+wandered)*organic-s.came))
	case learn:
		r.Waits = 0
	default:
		s.waits = r.Waits
		r.Waits = digits(max(0, r.Waits-max(0, s.came-organic)))
	}
	for i, c := range curves {
		if r.Missing() {
			r.Filters[i].stay(s)
		} else {
			r.Filters[i].pass(c, s, learn)
		}
	}
	r.level()
}

// tell begins and ends the time in which clients are missing. Where connections
// are accepted meanwhile, at half the organic rate or more, it ends after the
// return timeout: the other side is there, and those clients are never back.
func (r *Estimate) tell(now time.Time, short bool) {
	switch {
	case short && !r.Missing():
		r.Short, r.GaveUp, r.Heard = now, now, r.Accepted
	case !short && r.Missing():
		r.Short, r.LearnAt = time.Time{}, now.Add(max(herd, settles*r.Takes()))
	case short && now.Sub(r.GaveUp) >= r.Timeout.D():
		if heard := float64(r.Accepted - r.Heard); heard > r.Organic()*now.Sub(r.GaveUp).Seconds()/2 {
			for i, c := range curves {
				f := &r.Filters[i]
				f.Away = make([]float64, c.stages)
				f.Share, f.P[4], f.P[5], f.Log = usual, 0, priorSigma*priorSigma, 0 // the next may be others
			}
			r.Short = time.Time{}
		}
		r.GaveUp, r.Heard = now, r.Accepted
	}
}

// Outstanding is how many evicted clients may be on their way: rather more than
// there are. It never exceeds evicted.
func (r Estimate) Outstanding() int { return r.onTheirWay(likely) }

// AtMost is how many there hardly ever are more of.
func (r Estimate) AtMost() int { return r.onTheirWay(credible) }

func (r Estimate) onTheirWay(part float64) int {
	n := r.quantile(part, func(f filter, _ curve) float64 { return f.atMost(1) })
	return int(math.Ceil(min(n+float64(r.unweighed()), float64(r.Evicted))))
}

// unweighed is how many were evicted since the last spell; they all count as on
// their way.
func (r Estimate) unweighed() uint64 { return r.Evicted - r.WeighedEvicted }

// Room is how many clients, most at most, may be sent on their way evenly over the
// next step, so that no more than window are at once. They fit if, at its end, the
// filters with likely of all weight foresee no more than window, those with credible
// no more than 1+leeway windows, and if Stops would not end the step at once.
//
// While what is outstanding is not known well it is all at once or nothing: a
// trickle of closes returns as a trickle, which cannot be told from organic drift,
// and nothing would ever be learned.
func (r Estimate) Room(window, most int, every time.Duration) int {
	out := r.Outstanding()
	if out > window {
		return 0
	}
	n := sort.Search(most, func(n int) bool { return !r.fits(window, n+1, every) })
	mean := r.mean(func(f filter, _ curve) float64 { return f.atMost(0) }) + float64(r.unweighed())
	if n < min(most, window/3) && float64(out) > vague*mean {
		return 0
	}
	return n
}

func (r Estimate) fits(window, n int, every time.Duration) bool {
	s := flow{gone: float64(n) + float64(r.unweighed()), dt: every.Seconds()}
	then := func(part float64) float64 {
		return r.quantile(part, func(f filter, c curve) float64 {
			_, f.Away = f.moves(c, s)
			return f.atMost(1)
		})
	}
	return !r.Stops(window, n, every) && then(likely) <= float64(window) && then(credible) <= (1+leeway)*float64(window)
}

// Stops reports that a step that has n more to close, evenly over the rest of it,
// must not go on: clients seem to be missing, or may be before it is noticed, and the
// window would be exceeded by then.
func (r Estimate) Stops(window, n int, rest time.Duration) bool {
	unnoticed := float64(n) * min(1, notices.Seconds()/rest.Seconds())
	return r.Missing() || r.Doubt || float64(r.Outstanding())+unnoticed > (1+strain)*float64(window)
}

// NeverBack estimates how many of the evicted clients will not come back.
func (r Estimate) NeverBack() int {
	return int(r.mean(func(f filter, _ curve) float64 {
		return (1 - f.Share) * max(0, float64(r.WeighedEvicted)-f.away())
	}))
}

// Organic estimates the connections per second that come by themselves.
func (r Estimate) Organic() float64 {
	return r.mean(func(f filter, _ curve) float64 { return f.Organic })
}

// Back is the return curve R(age): which part of the evicted clients is back at
// that age. It rises to the plateau R∞.
func (r Estimate) Back(age time.Duration) float64 {
	return r.mean(func(f filter, c curve) float64 { return f.Share * c.within(age.Seconds()) })
}

// Takes estimates how long a client that comes back takes, on average.
func (r Estimate) Takes() time.Duration {
	mean := r.mean(func(_ filter, c curve) float64 { return c.mean })
	return time.Duration(mean * float64(time.Second)).Round(100 * time.Millisecond)
}

// MinWindow is the smallest window that can be kept: 3·√(organic rate · return
// time), three standard deviations of what comes by itself in that time
// (Poisson).
func (r Estimate) MinWindow() int {
	return max(1, int(math.Ceil(3*math.Sqrt(r.Organic()*r.Takes().Seconds()))))
}

// knows reports whether the totals are no higher than what was observed.
func (r Estimate) Knows(t Observation) bool {
	return t.Evicted <= r.SawEvicted && t.Accepted <= r.SawAccepted
}

// Mark is how many clients were evicted or lost by a moment.
type Mark struct {
	At   time.Time `json:"at"`
	Gone uint64    `json:"gone"`
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
