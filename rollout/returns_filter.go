package rollout

import (
	"cmp"
	"math"
	"slices"
)

const (
	jitter   = 0.15 // seconds: √(1/12) of the half second within which counts are read
	drift    = 0.02 // of the organic rate, per √second
	credible = 0.95
)

// curve is one way to come back: through stages that each take an exponential
// time, mean in all (an Erlang distribution). One stage is the exponential; two
// are close to any delay between 0 and 2·mean.
type curve struct {
	mean   float64 // seconds
	stages int
}

var curves = func() (all []curve) {
	for mean := 0.5; mean < 50; mean *= math.Sqrt2 {
		all = append(all, curve{mean, 1}, curve{mean, 2})
	}
	return all
}()

func (c curve) within(age float64) float64 {
	x := age * float64(c.stages) / c.mean
	sum, p := 0.0, math.Exp(-x)
	for i := range c.stages {
		sum += p
		p *= x / float64(i+1)
	}
	return 1 - sum
}

type filter struct {
	Away    []float64  `json:"away"`    // on their way if all came back, by stage
	Lag     float64    `json:"lag"`     // foreseen and not seen yet
	Organic float64    `json:"organic"` // per second
	Share   float64    `json:"share"`   // that comes back
	P       [6]float64 `json:"p"`       // covariance of the three: LL LO LS OO OS SS
	Log     float64    `json:"log"`     // log likelihood
}

func newFilter(c curve, exact bool) filter {
	f := filter{Away: make([]float64, c.stages), Share: 0.92}
	f.P[5] = 0.1 * 0.1
	if !exact {
		f.P[3] = 1e8
	}
	return f
}

func (f filter) away() (n float64) {
	for _, a := range f.Away {
		n += a
	}
	return n
}

func (f filter) upper() float64 {
	share := min(1, f.Share+1.0*math.Sqrt(f.P[5]))
	n := share * f.away()
	return n + 1*math.Sqrt(n)
}

// step moves everybody dt on; gone were evicted evenly meanwhile. It returns how
// many arrived.
func (f filter) step(c curve, gone, dt float64) (moved float64, away []float64) {
	x := dt * float64(c.stages) / c.mean
	away = make([]float64, c.stages)
	p, tail := math.Exp(-x), 1.0
	for k := range c.stages { // k stages passed
		tail -= p
		for i := 0; i+k < c.stages; i++ {
			away[i+k] += f.Away[i] * p
		}
		away[k] += gone * tail / x
		p *= x / float64(k+1)
	}
	moved = f.away() + gone
	for _, a := range away {
		moved -= a
	}
	return moved, away
}

// stay: nobody arrives, and who was on his way begins anew.
func (f *filter) stay(gone, dt float64) {
	away := make([]float64, len(f.Away))
	away[0] = f.away() + gone
	f.Away = away
	f.P[3] += f.Organic * f.Organic * drift * drift * dt
	f.P[0], f.P[1], f.P[2], f.Lag = 0, 0, 0, 0
}

func (f *filter) pass(c curve, gone, came, dt float64, learn, exact bool) {
	d, away := f.step(c, gone, dt)
	f.Away = away
	flow := f.Organic*dt + f.Share*d
	f.Lag += flow
	P := f.P
	var o float64
	if !exact {
		o = (f.Organic*f.Organic*drift*drift + 0.01) * dt
	}
	f.P[0] = P[0] + 2*dt*P[1] + 2*d*P[2] + dt*dt*P[3] + 2*dt*d*P[4] + d*d*P[5] + flow + 1
	f.P[1] = P[1] + dt*P[3] + d*P[4]
	f.P[2] = P[2] + dt*P[4] + d*P[5]
	f.P[3] += o
	if !learn {
		f.P[0], f.P[1], f.P[2], f.Lag = 0, 0, 0, 0
		return
	}
	rate := max(flow, came) / dt
	S := f.P[0] + rate*rate*jitter*jitter + 1
	v := came - f.Lag
	kl, ko, ks := f.P[0]/S, f.P[1]/S, f.P[2]/S
	f.Lag += kl*v - came
	f.Organic = max(0, f.Organic+ko*v)
	f.Share = min(1, max(0.1, f.Share+ks*v))
	P = f.P
	f.P = [6]float64{P[0] - kl*P[0], P[1] - kl*P[1], P[2] - kl*P[2], P[3] - ko*P[1], P[4] - ko*P[2], P[5] - ks*P[2]}
	f.Log -= (v*v/S + math.Log(S)) / 2
}

func (r Returns) weights() []float64 {
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

func (r Returns) mean(of func(filter, curve) float64) (sum float64) {
	for i, w := range r.weights() {
		sum += w * of(r.Filters[i], curves[i])
	}
	return sum
}

// level keeps the best filter's likelihood at 1, and none hopeless.
func (r *Returns) level() {
	best := math.Inf(-1)
	for _, f := range r.Filters {
		best = max(best, f.Log)
	}
	for i := range r.Filters {
		f := &r.Filters[i]
		f.Log = max(f.Log-best, -15)
	}
}

// quantile is the least value that the filters of the given part of all weight stay within.
func (r Returns) quantile(part float64, of func(filter, curve) float64) (value float64) {
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
