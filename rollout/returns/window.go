package returns

import (
	"math"
	"sort"
	"time"
)

// How carefully outstanding clients are counted.
const (
	// outstandingQuantile and atMostQuantile are the parts of all weight whose filters
	// Outstanding and AtMost are not below.
	outstandingQuantile = 0.9
	atMostQuantile      = 0.98
	// outstandingSigmas is the confidence of each filter itself, in standard deviations.
	outstandingSigmas = 1
)

// How strictly a window is kept, relative to it.
const (
	// atMostExcess is by how much AtMost may exceed a window: where a window nearly
	// binds, curves could not be told apart without closing less.
	atMostExcess = 0.05
	// stopExcess is by how much Outstanding may exceed it before a step is stopped.
	stopExcess = 0.1
	// shortfallNoticeTime is how long closes go on before it is noticed that no client
	// comes back.
	shortfallNoticeTime = 1500 * time.Millisecond
	// maxVagueness: Outstanding above so many times the mean is not known well.
	maxVagueness = 2.0
	// minWindowSigmas is how many standard deviations of the organic connections in a
	// return time the smallest window has.
	minWindowSigmas = 3
)

// Outstanding is how many evicted clients may be on their way: rather more than there
// are. It is 0 before the first eviction and never exceeds Evicted.
func (r Estimate) Outstanding() int { return r.outstanding(outstandingQuantile) }

// AtMost is how many evicted clients are on their way at the very most: there are
// hardly ever more. It never exceeds Evicted.
func (r Estimate) AtMost() int { return r.outstanding(atMostQuantile) }

func (r Estimate) outstanding(part float64) int {
	n := r.Filters.quantile(part, func(f filter, _ curve) float64 { return f.outstanding(outstandingSigmas) })
	return int(math.Ceil(min(n+float64(r.unweighed()), float64(r.Evicted))))
}

// unweighed is how many clients were evicted since the last spell; all of them count
// as on their way.
func (r Estimate) unweighed() uint64 { return r.Evicted - r.WeighedEvicted }

// Room is how many clients, most at most, may be evicted evenly over the next step,
// which takes every, so that no more than window are on their way at once. They fit
// if, at its end, the filters up to outstandingQuantile foresee no more than window,
// those up to atMostQuantile no more than 1 + atMostExcess windows, and if Stops would
// not end the step at once.
//
// While Outstanding is not known well it is most, a third of the window at least, or
// nothing: a trickle of closes returns as a trickle, which cannot be told from organic
// drift, and nothing would ever be learned.
func (r Estimate) Room(window, most int, every time.Duration) int {
	outstanding := r.Outstanding()
	if outstanding > window {
		return 0
	}
	n := sort.Search(most, func(n int) bool { return !r.fits(window, n+1, every) })
	mean := r.Filters.mean(func(f filter, _ curve) float64 { return f.outstanding(0) }) + float64(r.unweighed())
	if n < min(most, window/3) && float64(outstanding) > maxVagueness*mean {
		return 0
	}
	return n
}

func (r Estimate) fits(window, n int, every time.Duration) bool {
	evicted, dt := float64(n)+float64(r.unweighed()), every.Seconds()
	then := func(part float64) float64 {
		return r.Filters.quantile(part, func(f filter, c curve) float64 {
			_, f.Transit = c.advance(f.Transit, evicted, dt)
			return f.outstanding(outstandingSigmas)
		})
	}
	return !r.Stops(window, n, every) && then(outstandingQuantile) <= float64(window) && then(atMostQuantile) <= (1+atMostExcess)*float64(window)
}

// Stops reports whether a step that has n more clients to evict, evenly over the rest
// of it, must not go on: clients are missing or seem to be, or 1 + stopExcess windows
// would be exceeded before it is noticed that they are.
func (r Estimate) Stops(window, n int, rest time.Duration) bool {
	unnoticed := float64(n) * min(1, shortfallNoticeTime.Seconds()/rest.Seconds())
	return r.Missing() || r.Doubt || float64(r.Outstanding())+unnoticed > (1+stopExcess)*float64(window)
}

// NeverBack is how many of the evicted clients will not come back, by the mean of the
// filters: (1 − share) of those no longer on their way.
func (r Estimate) NeverBack() int {
	return int(r.Filters.mean(func(f filter, _ curve) float64 {
		return (1 - f.Share) * max(0, float64(r.WeighedEvicted)-f.transit())
	}))
}

// Returned is how many of the accepted connections were those of returning clients:
// what exceeds the organic rate, and no more than were evicted.
func (r Estimate) Returned() int {
	back := float64(r.WeighedAccepted) - r.Organic()*r.At.Sub(r.Since).Seconds()
	return int(min(max(0, math.Round(back)), float64(r.WeighedEvicted)))
}

// Organic is the rate of connections per second that come to the target by themselves.
func (r Estimate) Organic() float64 {
	return r.Filters.mean(func(f filter, _ curve) float64 { return f.Organic })
}

// share is the part of the evicted clients that comes back at all, 0 to 1.
func (r Estimate) share() float64 {
	return r.Filters.mean(func(f filter, _ curve) float64 { return f.Share })
}

// Back is the return curve R(age): the part of the evicted clients that is back at
// that age, 0 to 1. It is 0 at age 0 and rises to the plateau R∞.
func (r Estimate) Back(age time.Duration) float64 {
	return r.Filters.mean(func(f filter, c curve) float64 { return f.Share * c.backBy(age.Seconds()) })
}

// Takes is the mean time from eviction to return of a client that comes back, to a
// tenth of a second.
func (r Estimate) Takes() time.Duration {
	mean := r.Filters.mean(func(_ filter, c curve) float64 { return c.mean })
	return time.Duration(mean * float64(time.Second)).Round(100 * time.Millisecond)
}

// MinWindow is the smallest window, in clients, that can be kept: 3·√(organic rate ·
// return time), three standard deviations of what comes by itself in that time
// (Poisson), and 1 at least.
func (r Estimate) MinWindow() int {
	return max(1, int(math.Ceil(minWindowSigmas*math.Sqrt(r.Organic()*r.Takes().Seconds()))))
}
