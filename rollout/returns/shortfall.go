package returns

import "time"

// How long a spell is.
const (
	// minSpell is the shortest one, about two observations: in a shorter one the jitter
	// of the counts tells more than the clients do.
	minSpell = 900 * time.Millisecond
	// minShortfallSpell is the shortest one that may prove clients missing, and maxSpell
	// the longest that is waited for where that is not clear.
	minShortfallSpell = 1900 * time.Millisecond
	maxSpell          = 10 * time.Second
)

// When clients are missing.
const (
	// minAcceptedOfForecast is the part of the forecast below which the accepted
	// connections are few.
	minAcceptedOfForecast = 0.4
	// promptReturn is how long after their closes clients count as prompt: a count
	// whose moment was misjudged has them on the wrong side.
	promptReturn = 500 * time.Millisecond
	// minMeanReturnShare is the part of the evicted clients, by the mean of the filters,
	// below which hardly half come back: no filter believes in less than minReturnShare.
	minMeanReturnShare = minReturnShare + priorReturnShareSigma/2
)

// What happens when missing clients come again.
const (
	// minRelearnPause is how long nothing is learned from then on, or relearnReturnTimes mean
	// return times if that is longer: clients come at once, and organic connections
	// with them, and some pass for others. Until those that still count as on their
	// way would be back anyway, a curve learned from what comes would be too fast.
	minRelearnPause    = 10 * time.Second
	relearnReturnTimes = 2
	// minForgotten is how many organic connections have to be expected in Timeout for their
	// absence to be the organic rate's.
	minForgotten = 10
	// unseenOrganicDrift is how much higher than known the organic rate may be, relative
	// to itself, when it was not seen for minutes.
	unseenOrganicDrift = 0.2
)

// endSpell ends the spell at AsOf, begins or ends a shortfall, has the bank learn from
// the spell and begins the next; unless few connections were accepted and it is not
// clear yet whether clients are missing: then the spell goes on, perhaps in doubt.
func (r *Estimate) endSpell() {
	s, evicted := r.currentSpell()
	few, significant := r.shortfall(s)
	if !r.Missing() {
		took := r.AsOf.Sub(r.At)
		r.Doubt = few && significant
		if few && (took < minShortfallSpell || !significant && took < maxSpell) {
			return
		}
	}
	r.At, r.WeighedEvicted, r.WeighedAccepted = r.AsOf, evicted, r.Accepted
	r.EvictionRate, r.Doubt = fiveDigits(s.evicted/s.dt), false
	for len(r.Marks) > 1 && !r.Marks[1].At.After(r.At) {
		r.Marks = r.Marks[1:]
	}
	switch short := few && significant || r.share() < minMeanReturnShare; {
	case short && !r.Missing():
		r.Short, r.GaveUp, r.GaveUpAccepted = r.At, r.At, r.Accepted
	case short:
		r.giveUp()
	case r.Missing():
		r.Short, r.LearnAt = time.Time{}, r.At.Add(max(minRelearnPause, relearnReturnTimes*r.Takes()))
	}
	learning := !r.At.Before(r.LearnAt)
	s.refused, r.RefusedOrganic = r.RefusedOrganic, r.refusedAfter(s, learning)
	for i, c := range curves {
		switch f := r.Filters[i]; {
		case r.Missing():
			r.Filters[i] = f.hold(s)
		case !f.Began:
			r.Filters[i] = f.begin(c, s)
		case learning:
			r.Filters[i] = f.learn(c, s)
		default:
			r.Filters[i] = f.follow(c, s)
		}
	}
	r.Filters.level()
}

// MissesOrganic reports whether connections are missing, or were a moment ago, and many came
// by themselves before. Where nobody is waited for any more it is the organic rate that fell,
// and an estimate has to begin anew to see it. Where next to none came by themselves it is
// evicted clients that are missing.
func (r Estimate) MissesOrganic() bool {
	return (r.Missing() || r.At.Before(r.LearnAt)) && r.Organic()*r.Timeout.D().Seconds() >= minForgotten
}

// currentSpell is what happened from At to AsOf, and evicted what Evicted was then.
func (r Estimate) currentSpell() (s spell, evicted uint64) {
	evicted = max(r.WeighedEvicted, r.evictedBy(r.AsOf))
	return spell{
		evicted:  float64(evicted - r.WeighedEvicted),
		accepted: float64(r.Accepted - r.WeighedAccepted),
		dt:       r.AsOf.Sub(r.At).Seconds(),
	}, evicted
}

// shortfall reports whether few connections were accepted in the spell, and whether
// that is more than chance, by a low forecast: the quantile 1 − atMostQuantile over
// the filters.
func (r Estimate) shortfall(s spell) (few, significant bool) {
	forecast := r.Filters.quantile(1-atMostQuantile, func(f filter, c curve) float64 {
		if r.Missing() {
			return f.forecastRecovery(c, s)
		}
		return f.forecast(c, s)
	})
	prompt := max(r.EvictionRate, s.evicted/s.dt) * r.Back(promptReturn)
	return s.accepted < minAcceptedOfForecast*forecast, forecast-s.accepted > chanceGap(forecast, prompt)
}

// giveUp takes missing clients for never back when they were waited for Timeout and as
// much as half the organic rate was accepted meanwhile: the target is there, so clients
// are not missing any more. Where less was accepted the wait begins anew.
func (r *Estimate) giveUp() {
	waited := r.At.Sub(r.GaveUp)
	if waited < r.Timeout.D() {
		return
	}
	if accepted := float64(r.Accepted - r.GaveUpAccepted); accepted > r.Organic()*waited.Seconds()/2 {
		for i, f := range r.Filters {
			r.Filters[i] = f.giveUp()
		}
		r.Short = time.Time{}
	}
	r.GaveUp, r.GaveUpAccepted = r.At, r.Accepted
}

// refusedAfter is how many refused organic connections may still try after the spell:
// while clients are missing those that were not accepted add up, and then those
// accepted beyond the organic rate are taken off until learning begins again.
func (r Estimate) refusedAfter(s spell, learning bool) float64 {
	switch organic := r.Organic() * s.dt; {
	case r.Missing():
		return fiveDigits(r.RefusedOrganic + max(0, (1+unseenOrganicDrift)*organic-s.accepted))
	case learning:
		return 0
	default:
		return fiveDigits(max(0, r.RefusedOrganic-max(0, s.accepted-organic)))
	}
}
