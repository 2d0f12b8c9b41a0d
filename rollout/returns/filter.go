package returns

import "math"

// Standard deviations of what is counted as accepted, beside chance.
const (
	// countJitterSigma, in seconds, is how far off the moments are at which closes and
	// returns count: instances are asked in turn, and obey in turn.
	countJitterSigma = 0.05
	// modelErrorSigma is all else, relative to what is accepted.
	modelErrorSigma = 0.02
)

// What is no chance.
const (
	// chanceSigmas is the most standard deviations that are put down to chance.
	chanceSigmas = 5
	// minBurstExcess is how many more than expected have to be accepted, relative to
	// what is expected, to be a burst.
	minBurstExcess = 0.5
)

// spell is what happened between two moments dt seconds apart: so many clients were
// evicted, evenly, and the target accepted so many connections.
type spell struct {
	evicted, accepted, dt float64
	// refused is how many organic connections that the target refused before the
	// spell may be among the accepted ones.
	refused float64
}

// filter is what one belief makes of both totals: where the evicted clients are on
// their curve, and a Kalman filter of the rest. Its methods return a new filter.
type filter struct {
	// Transit is how many evicted clients would be on their way if all came back, by
	// stage of the curve.
	Transit []float64 `json:"away"`
	kalman
	// Log is the log likelihood of all spells, relative to the best filter's.
	Log float64 `json:"log"`
	// Began: the first spell has passed.
	Began bool `json:"began,omitempty"`
}

func newFilter(c curve) filter {
	return filter{Transit: make([]float64, c.stages), kalman: newKalman()}
}

// transit is how many evicted clients would be on their way if all came back.
func (f filter) transit() float64 { return sum(f.Transit) }

// outstanding is how many evicted clients are on their way at a confidence of so many
// standard deviations, those of the share and those of chance (Poisson): n + σ·√n,
// where n = (share + σ·its deviation) · transit. It never exceeds transit.
func (f filter) outstanding(sigmas float64) float64 {
	transit := f.transit()
	n := min(1, f.Share+sigmas*math.Sqrt(f.P[shareShare])) * transit
	return min(transit, n+sigmas*math.Sqrt(n))
}

// forecast is how many connections the target accepts in the spell if all is as it was.
func (f filter) forecast(c curve, s spell) float64 {
	back, _ := c.advance(f.Transit, s.evicted, s.dt)
	return f.Lag + f.Organic*s.dt + f.Share*back
}

// forecastRecovery is how many connections a target that refused accepts in the spell
// if it accepts again: each client that it refused tries once in mean seconds, or in
// the spell if that is longer.
func (f filter) forecastRecovery(c curve, s spell) float64 {
	return f.Organic*s.dt + f.Share*f.transit()*s.dt/max(s.dt, c.mean)
}

// begin learns the organic rate from the first spell: what is left of the accepted
// connections when the returned clients are taken off.
func (f filter) begin(c curve, s spell) filter {
	back, transit := c.advance(f.Transit, s.evicted, s.dt)
	f.Transit, f.Began = transit, true
	f.kalman = f.kalman.begin(max(0, s.accepted-f.Share*back) / s.dt)
	return f
}

// learn lets the spell pass as predicted and corrects what it believes by what was
// accepted.
func (f filter) learn(c curve, s spell) filter {
	f, expected := f.predict(c, s)
	k, logLikelihood := f.correct(s.accepted, s.evicted/s.dt*countJitterSigma+modelErrorSigma*expected)
	f.kalman, f.Log = k, f.Log+logLikelihood
	return f
}

// follow lets the spell pass as predicted and learns nothing from it but a burst.
func (f filter) follow(c curve, s spell) filter {
	f, expected := f.predict(c, s)
	for k, left := 0, f.leftAfterBurst(s, expected); k < len(f.Transit); k++ {
		f.Transit[k] *= left // its own: advance made it
	}
	f.kalman = f.settle()
	return f
}

// hold lets a spell pass in which clients are missing: none comes back, and all that
// were on their way begin their curve anew.
func (f filter) hold(s spell) filter {
	transit := make([]float64, len(f.Transit))
	transit[0] = f.transit() + s.evicted
	f.Transit = transit
	f.kalman = f.drift(s.dt).settle()
	return f
}

// giveUp takes all clients for never back that were on their way. What was learned of
// them is forgotten but the organic rate: the next may be others.
func (f filter) giveUp() filter {
	f.Transit, f.Log = make([]float64, len(f.Transit)), 0
	f.kalman = f.forgetShare()
	return f
}

func (f filter) predict(c curve, s spell) (next filter, expected float64) {
	back, transit := c.advance(f.Transit, s.evicted, s.dt)
	f.Transit = transit
	f.kalman, expected = f.kalman.predict(s.dt, back)
	return f, expected
}

// leftAfterBurst is the part of the clients in transit that remains when a target that
// refused accepts again and they come at once: such a burst follows no curve and would
// count as on its way for long. Refused organic connections come with it and are taken
// off. It is 1 where there is no burst.
func (f filter) leftAfterBurst(s spell, expected float64) float64 {
	more := s.accepted - expected
	if more < chanceGap(expected, expected/s.dt)+minBurstExcess*expected || more <= s.refused || f.transit() == 0 {
		return 1
	}
	return max(0, 1-(more-s.refused)/(f.Share*f.transit()))
}

// chanceGap is the most connections by which a count can differ from what was
// expected by chance: chanceSigmas · √(expected + counting²), where the first is
// Poisson and prompt, in clients per second, is how many come back right after their
// closes, so that a moment that is misjudged tells.
func chanceGap(expected, prompt float64) float64 {
	return chanceSigmas * math.Hypot(math.Sqrt(expected), countJitterSigma*prompt+modelErrorSigma*expected)
}

// rounded has five significant digits of each number, in place for Transit.
func (f filter) rounded() filter {
	f.Log, f.kalman = fiveDigits(f.Log), f.kalman.rounded()
	for k, n := range f.Transit {
		f.Transit[k] = fiveDigits(n)
	}
	return f
}
