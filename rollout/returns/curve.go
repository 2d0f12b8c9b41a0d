package returns

import "math"

// curve is one way in which evicted clients come back: after an Erlang-distributed
// time, that is, through stages in a row of which each takes an exponential time
// (method of stages; L. Kleinrock, Queueing Systems 1 (1975) ch. 4). One stage has no
// memory, as clients with random waits have none; two come close to any wait between
// nothing and twice the mean.
type curve struct {
	mean   float64 // seconds from eviction to return, over all stages
	stages int
}

// The means of curves, in seconds, are a geometric grid: a mean that lies between two
// of them is wrong by an eighth at most.
const (
	minReturnMean   = 0.15
	maxReturnMean   = 45.0 // exclusive; the last one is 38 s
	returnMeanRatio = 1.26
	// maxSingleStageMean is up to where two stages cannot be told from one: spells
	// last about a second.
	maxSingleStageMean = 2.0
)

// curves are the beliefs of the bank, one filter each. Their order is the order of
// what is stored.
var curves = func() (all []curve) {
	for mean := minReturnMean; mean < maxReturnMean; mean *= returnMeanRatio {
		all = append(all, curve{mean, 1})
		if mean > maxSingleStageMean {
			all = append(all, curve{mean, 2})
		}
	}
	return all
}()

// backBy is the part of the returning clients that is back age seconds after its
// eviction: 1 − Σ e⁻ˣ xⁱ/i! over i < stages, with x = stages · age / mean. It is 0 at
// age 0 and rises to 1.
func (c curve) backBy(age float64) float64 {
	x := age * float64(c.stages) / c.mean
	back, p := 1.0, math.Exp(-x)
	for i := range c.stages {
		back -= p
		p *= x / float64(i+1)
	}
	return back
}

// advance lets dt seconds (> 0) pass for clients that are all to come back: transit
// counts those in each stage at the beginning, evicted more enter evenly meanwhile.
// It returns how many are back at the end and a new slice of those in each stage.
//
// The stages that a client passes are Poisson: k with probability pₖ = e⁻ˣ xᵏ/k!,
// where x = stages · dt / mean. For a client evicted meanwhile x counts from an even
// moment on, so it is in stage k at the end with probability
// 1/x · ∫₀ˣ e⁻ʸ yᵏ/k! dy = (1 − p₀ − … − pₖ)/x.
func (c curve) advance(transit []float64, evicted, dt float64) (back float64, after []float64) {
	x := dt * float64(c.stages) / c.mean
	after = make([]float64, c.stages)
	p, more := math.Exp(-x), 1.0 // more: the probability of more than k stages
	for k := range c.stages {
		more -= p
		for i := range c.stages - k {
			after[i+k] += transit[i] * p
		}
		after[k] += evicted * more / x
		p *= x / float64(k+1)
	}
	back = sum(transit) + evicted
	for _, n := range after {
		back -= n
	}
	return max(0, back), after
}

func sum(all []float64) (total float64) {
	for _, x := range all {
		total += x
	}
	return total
}
