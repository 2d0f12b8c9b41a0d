package returns

import (
	"cmp"
	"math"
	"slices"
)

const (
	// jitter, in seconds, is how far off the moments may be by which closes and
	// returns are counted (a standard deviation): instances are asked in turn, and
	// obey in turn.
	jitter = 0.05
	// noise is the same for all else, relative to what is accepted.
	noise = 0.02
	// surprise is the most standard deviations by which a spell may be wrong: when
	// green refuses, what is known of the clients must not be lost.
	surprise = 3.5
	// temper is how much of what a spell says is believed: drift is no random walk,
	// and no client follows a curve exactly.
	temper = 0.8
	// throng is by how much more have to come than was foreseen to be a herd.
	throng = 0.5
	// drift is how far the organic rate wanders, relative to itself, in a second
	// (a random walk: √t times as far in t). Over a minute that is ±8 %, over five
	// ±17 %; half of it mistook drift for returns, twice of it learned half as fast.
	drift = 0.01
	// usual and priorSigma are what is believed beforehand of the share that comes back.
	usual, priorSigma = 0.92, 0.1
	// least is the smallest share that is believed: where fewer come back than that,
	// it is not a habit of clients, and the funnel had better be slow.
	least = 0.5
	// hopeless is the least log likelihood, relative to the best filter's: one that
	// was wrong for long can still be right when clients change their ways.
	hopeless = -15
)

// curve is one way to come back: through stages that take an exponential time
// each, mean in all (an Erlang distribution). One stage forgets, as clients with
// random waits do; two come close to any wait between nothing and twice the mean.
type curve struct {
	mean   float64 // seconds
	stages int
}

// curves have means from 0.15 s to 40 s, a quarter apart: a mean that is between
// two of them is wrong by an eighth at most.
var curves = func() (all []curve) {
	for mean := 0.15; mean < 45; mean *= 1.26 {
		all = append(all, curve{mean, 1})
		if mean > 2 { // faster ones cannot be told apart
			all = append(all, curve{mean, 2})
		}
	}
	return all
}()

// within is the part that is back at an age of so many seconds:
// 1 − Σ e⁻ˣ xⁱ/i! over i < stages, with x = stages · age / mean.
func (c curve) within(age float64) float64 {
	x := age * float64(c.stages) / c.mean
	back, p := 1.0, math.Exp(-x)
	for i := range c.stages {
		back -= p
		p *= x / float64(i+1)
	}
	return back
}

// flow is one spell: dt seconds in which gone were evicted, evenly, and came accepted.
type flow struct {
	gone, came, dt float64
	// waits is how many organic connections that were refused may be in came.
	waits float64
}

// filter is a Kalman filter of three unknowns, under the belief in one curve:
//
//	lag      connections foreseen and not seen yet:  lag + organic·dt + share·d
//	organic  connections per second:                 a random walk, variance (drift·organic)²·dt
//	share    of clients that come back at all:       constant
//
// where d would have come back in the spell if all did. The variance of lag grows
// by what came (Poisson). What is measured is lag itself: came, give or take the
// jitter of the totals. Being cumulative, it forgives a count that is late.
type filter struct {
	// Away is how many would be on their way if all came back, by stage.
	Away    []float64 `json:"away"`
	Lag     float64   `json:"lag"`
	Organic float64   `json:"organic"`
	Share   float64   `json:"share"`
	// P is the covariance: lag·lag, lag·organic, lag·share, organic·organic,
	// organic·share, share·share.
	P [6]float64 `json:"p"`
	// Log is the log likelihood relative to the best filter.
	Log float64 `json:"log"`
	// Began: a spell has passed.
	Began bool `json:"began,omitempty"`
}

func newFilter(c curve) filter {
	return filter{Away: make([]float64, c.stages), Share: usual, P: [6]float64{5: priorSigma * priorSigma}}
}

func (f filter) away() (n float64) {
	for _, a := range f.Away {
		n += a
	}
	return n
}

// atMost is how many are on their way, and so many standard deviations more: of
// the share, and of chance.
func (f filter) atMost(sigmas float64) float64 {
	n := min(1, f.Share+sigmas*math.Sqrt(f.P[5])) * f.away()
	return min(f.away(), n+sigmas*math.Sqrt(n))
}

// foresees is what would be accepted in the spell if all is as it was.
func (f filter) foresees(c curve, s flow) float64 {
	back, _ := f.moves(c, s)
	return f.Lag + f.Organic*s.dt + f.Share*back
}

// resumes is what would be accepted in the spell if the other side, which refused,
// accepted again: those it refused try now and then.
func (f filter) resumes(c curve, s flow) float64 {
	return f.Organic*s.dt + f.Share*f.away()*s.dt/max(s.dt, c.mean)
}

// moves lets the spell pass: how many are back if all come back, and where the
// others are. Who is in a stage passes k more with probability pₖ = e⁻ˣ xᵏ/k!, where
// x = stages·dt/mean; of those evicted meanwhile, evenly, the part
// (1 − p₀ − … − pₖ)/x is in stage k at the end.
func (f filter) moves(c curve, s flow) (back float64, away []float64) {
	x := s.dt * float64(c.stages) / c.mean
	away = make([]float64, c.stages)
	p, beyond := math.Exp(-x), 1.0
	for k := range c.stages {
		beyond -= p
		for i := range c.stages - k {
			away[i+k] += f.Away[i] * p
		}
		away[k] += s.gone * beyond / x
		p *= x / float64(k+1)
	}
	back = f.away() + s.gone
	for _, a := range away {
		back -= a
	}
	return max(0, back), away
}

// stay: nobody comes back, and who was on his way begins anew.
func (f *filter) stay(s flow) {
	away := make([]float64, len(f.Away))
	away[0] = f.away() + s.gone
	f.Away = away
	f.P[3] += f.wanders(s)
	f.forget()
}

// herd counts those who come at once when the other side accepts again, beyond
// what was foreseen: they follow no curve, and would count as on their way for long.
func (f *filter) herd(s flow, foreseen float64) {
	more := s.came - foreseen
	if more < sure(foreseen, foreseen/s.dt)+throng*foreseen || more <= s.waits || f.away() == 0 {
		return
	}
	left := max(0, 1-(more-s.waits)/(f.Share*f.away()))
	for k := range f.Away {
		f.Away[k] *= left
	}
}

// sure is how far what came has to be from what was foreseen to be no chance (five
// standard deviations), where rate is how many per second came right after their
// closes.
func sure(foreseen, rate float64) float64 {
	return 5 * math.Hypot(math.Sqrt(foreseen), jitter*rate+noise*foreseen)
}

// forget begins to count anew what is foreseen and seen.
func (f *filter) forget() { f.Lag, f.P[0], f.P[1], f.P[2] = 0, 0, 0, 0 }

func (f filter) wanders(s flow) float64 {
	return (f.Organic*f.Organic + 100) * drift * drift * s.dt // below 10/s as at 10/s
}

// pass lets the spell pass as foreseen and, if it may learn, corrects what it
// believes by what came.
func (f *filter) pass(c curve, s flow, learn bool) {
	back, away := f.moves(c, s)
	f.Away = away
	if !f.Began { // the first spell says what the organic rate is like, but little more
		f.Began = true
		f.Organic = max(0, s.came-f.Share*back) / s.dt
		f.P[3] = 100 * (f.Organic*f.Organic + 1)
		return
	}
	// Predict: P ← F·P·Fᵀ + Q with F = [1 dt back; 0 1 0; 0 0 1].
	came := f.Organic*s.dt + f.Share*back
	f.Lag += came
	p := &f.P
	p[0] += 2*(s.dt*p[1]+back*(p[2]+s.dt*p[4])) + s.dt*s.dt*p[3] + back*back*p[5] + came + 1
	p[1] += s.dt*p[3] + back*p[4]
	p[2] += s.dt*p[4] + back*p[5]
	p[3] += f.wanders(s)
	if !learn {
		f.herd(s, came)
		f.forget()
		return
	}
	// Correct: gain K = P·h/σ² with h = [1 0 0].
	late := s.gone/s.dt*jitter + noise*came
	variance := p[0] + late*late + 1
	most := surprise * math.Sqrt(variance)
	wrong := max(-most, min(most, s.came-f.Lag))
	lag, organic, share := p[0]/variance, p[1]/variance, p[2]/variance
	f.Lag += lag*wrong - s.came
	f.Organic = max(0, f.Organic+organic*wrong)
	f.Share = min(1, max(least, f.Share+share*wrong))
	*p = [6]float64{p[0] - lag*p[0], p[1] - lag*p[1], p[2] - lag*p[2], p[3] - organic*p[1], p[4] - organic*p[2], p[5] - share*p[2]}
	f.Log -= temper * (wrong*wrong/variance + math.Log(variance)) / 2
}

// level makes the best filter's log likelihood 0 and no other hopeless, and
// rounds everything to five digits, which keeps the stored value short.
func (r *Estimate) level() {
	best := math.Inf(-1)
	for _, f := range r.Filters {
		best = max(best, f.Log)
	}
	for i := range r.Filters {
		f := &r.Filters[i]
		f.Log = digits(max(f.Log-best, hopeless))
		f.Lag, f.Organic, f.Share = digits(f.Lag), digits(f.Organic), digits(f.Share)
		for k := range f.P {
			f.P[k] = digits(f.P[k])
		}
		for k := range f.Away {
			f.Away[k] = digits(f.Away[k]) // its own: moves and stay make a new one
		}
	}
}

// digits rounds to five significant digits, and what is less than a millionth to 0.
func digits(x float64) float64 {
	if math.Abs(x) < 1e-6 {
		return 0
	}
	scale := math.Pow10(4 - int(math.Floor(math.Log10(math.Abs(x)))))
	if scale < 1 {
		return math.Round(x*scale) * math.Round(1/scale)
	}
	return math.Round(x*scale) / scale
}

// weights are the filters' probabilities, all curves being equally likely beforehand.
func (r Estimate) weights() []float64 {
	w := make([]float64, len(r.Filters))
	sum := 0.0
	for i, f := range r.Filters {
		w[i] = math.Exp(f.Log)
		sum += w[i]
	}
	for i := range w {
		w[i] /= sum
	}
	return w
}

func (r Estimate) mean(of func(filter, curve) float64) (sum float64) {
	for i, w := range r.weights() {
		sum += w * of(r.Filters[i], curves[i])
	}
	return sum
}

// quantile is the least value such that filters with this part of all the weight
// are not above it.
func (r Estimate) quantile(part float64, of func(filter, curve) float64) (value float64) {
	type one struct{ value, weight float64 }
	all := make([]one, len(r.Filters))
	for i, w := range r.weights() {
		all[i] = one{of(r.Filters[i], curves[i]), w}
	}
	slices.SortFunc(all, func(a, b one) int { return cmp.Compare(a.value, b.value) })
	for _, o := range all {
		value = o.value
		if part -= o.weight; part <= 0 {
			break
		}
	}
	return value
}
