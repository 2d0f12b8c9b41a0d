package rollout

import (
	"math"
	"slices"
	"time"
)

// Returns tells how many evicted clients are on their way, from two totals only:
// the connections evicted, and those that the side that takes over accepted.
// The second are returning clients and organic ones together, so neither is known;
// known is how they behave: an evicted client comes back some time after its
// eviction or never does, and the organic rate drifts slowly.
//
// It is a bank of Kalman filters (multiple model estimation: Magill, IEEE Trans.
// Automatic Control 10, 1965). Each filter assumes one return curve (see curves),
// learns the organic rate and the share that comes back at all, and is weighed by
// how well it foresaw what was accepted. What is outstanding is then a quantile over
// the filters, not their mean: where little is known yet, everyone evicted
// counts as on his way, so the first closes are the probe by themselves.
//
// How Step calls it, in Draining with the gates closed:
//
//	r.Returns = new(NewReturns(exact, timeout))                 // once
//	r.Returns = new(r.Returns.Observe(now, evicted, accepted))  // about once a second, and with the fresh counts before a step
//	if !r.Returns.Ready() { wait: measuring how many connections come by themselves }
//	if r.Returns.Missing() { wait: evicted clients are not coming back }
//	n = min(cap, window − r.Returns.Outstanding())              // closes of the next step; 0 or less: wait for the next observation
//
// It is a value: methods never change what they are called on. Times come from
// the caller, and its JSON is bounded (about 4 KB).
type Returns struct {
	// Exact: accepted counts returning clients and nobody else.
	Exact bool `json:"exact,omitempty"`
	// Timeout is when an evicted client counts as never back.
	Timeout Duration `json:"timeout"`
	// Since is the first observation; At the last one that was weighed.
	Since time.Time `json:"since,omitzero"`
	At    time.Time `json:"at,omitzero"`
	// Evicted and Accepted are the newest totals, less those of the first
	// observation; EvictedAt and AcceptedAt what they were At.
	Evicted    uint64 `json:"evicted"`
	Accepted   uint64 `json:"accepted"`
	EvictedAt  uint64 `json:"evicted_at"`
	AcceptedAt uint64 `json:"accepted_at"`
	// Short is since when far fewer were accepted than any curve foresees; zero
	// when they are not. LearnAt is when learning goes on after that.
	Short   time.Time `json:"short,omitzero"`
	LearnAt time.Time `json:"learn_at,omitzero"`
	Heard   time.Time `json:"heard,omitzero"`
	HeardAt uint64    `json:"heard_at,omitempty"`
	// FirstEvicted and FirstAccepted are the totals of the first observation.
	FirstEvicted  uint64   `json:"first_evicted"`
	FirstAccepted uint64   `json:"first_accepted"`
	Filters       []filter `json:"filters"`
}

// measuring is how long the organic rate is measured before the first close.
const measuring = 10 * time.Second

// NewReturns begins to estimate. timeout is the policy's ReturnTimeout.
func NewReturns(exact bool, timeout time.Duration) Returns {
	r := Returns{Exact: exact, Timeout: Duration(timeout), Filters: make([]filter, len(curves))}
	for i, c := range curves {
		r.Filters[i] = newFilter(c, exact)
	}
	return r
}

// Ready reports whether the first connection may be closed: at once where returns
// are exact, else when the organic rate has been measured for 10 s.
func (r Returns) Ready() bool {
	return !r.Since.IsZero() && (r.Exact || r.At.Sub(r.Since) >= measuring)
}

// Missing reports that far fewer connections are accepted than there would be if
// evicted clients came back as they did before.
func (r Returns) Missing() bool { return !r.Short.IsZero() }

// Observe adds the totals as they are now: evicted over the whole rollout, and
// accepted by the side that takes over (in exact mode: returned to it). Only
// differences count; a total that falls counts as unchanged.
func (r Returns) Observe(now time.Time, evicted, accepted uint64) Returns {
	r.Filters = slices.Clone(r.Filters)
	if r.Since.IsZero() {
		r.Since, r.At = now, now
		r.FirstEvicted, r.FirstAccepted = evicted, accepted
		return r
	}
	r.Evicted = max(r.Evicted, max(evicted, r.FirstEvicted)-r.FirstEvicted)
	r.Accepted = max(r.Accepted, max(accepted, r.FirstAccepted)-r.FirstAccepted)
	if dt := now.Sub(r.At).Seconds(); dt >= 0.5 {
		r.weigh(now, dt)
	}
	return r
}

func (r *Returns) weigh(now time.Time, dt float64) {
	gone, came := float64(r.Evicted-r.EvictedAt), float64(r.Accepted-r.AcceptedAt)
	foreseen := r.quantile(1-credible, func(f filter, c curve) float64 {
		if r.Missing() {
			return f.Organic*dt + f.Share*f.away()*dt/max(dt, c.mean)
		}
		moved, _ := f.step(c, gone, dt)
		return f.Lag + f.Organic*dt + f.Share*moved
	})
	noise := math.Sqrt(foreseen + jitter*jitter*foreseen*foreseen/dt/dt)
	short := foreseen-came > 3*noise && came < 0.4*foreseen && now.Sub(r.Since) > 2*time.Second
	if short && !r.Missing() && dt < 1.9 {
		return
	}
	r.At, r.EvictedAt, r.AcceptedAt = now, r.Evicted, r.Accepted
	switch {
	case short && !r.Missing():
		r.Short, r.Heard, r.HeardAt = now, now, r.Accepted
	case !short && r.Missing():
		r.Short = time.Time{}
		r.LearnAt = now.Add(10 * time.Second)
	case short && now.Sub(r.Heard) >= r.Timeout.D():
		if float64(r.Accepted-r.HeardAt) > r.Organic()*now.Sub(r.Heard).Seconds()/2 {
			for i := range r.Filters {
				r.Filters[i].Away = make([]float64, len(r.Filters[i].Away))
			}
			r.Short = time.Time{}
		}
		r.Heard, r.HeardAt = now, r.Accepted
	}
	for i, c := range curves {
		f := &r.Filters[i]
		if short {
			f.stay(gone, dt)
		} else {
			f.pass(c, gone, came, dt, now.After(r.LearnAt), r.Exact)
		}
	}
	r.level()
}

// Outstanding is how many evicted clients may be on their way, and no fewer than
// there are but in a few cases of a hundred.
func (r Returns) Outstanding() int {
	n := r.quantile(credible, func(f filter, _ curve) float64 { return f.upper() })
	n += float64(r.Evicted - r.EvictedAt)
	n = min(n, float64(r.Evicted))
	if r.Exact {
		n = min(n, max(0, float64(r.Evicted)-float64(r.Accepted)))
	}
	return int(math.Ceil(n))
}

// NeverBack estimates how many evicted clients will not come back.
func (r Returns) NeverBack() int {
	return int(r.mean(func(f filter, _ curve) float64 {
		return (1 - f.Share) * max(0, float64(r.EvictedAt)-f.away())
	}))
}

// Organic estimates the connections per second that come by themselves.
func (r Returns) Organic() float64 {
	return r.mean(func(f filter, _ curve) float64 { return f.Organic })
}

// Share estimates which part of the evicted clients comes back within age.
func (r Returns) Share(age time.Duration) float64 {
	return r.mean(func(f filter, c curve) float64 { return f.Share * c.within(age.Seconds()) })
}

// MinWindow is the smallest window that can be kept: 3·√(organic rate · return
// time), three standard deviations of what comes by itself meanwhile.
func (r Returns) MinWindow() int {
	if r.Exact {
		return 1
	}
	takes := r.mean(func(_ filter, c curve) float64 { return c.mean })
	return int(math.Ceil(3 * math.Sqrt(max(1, r.Organic()*takes))))
}
