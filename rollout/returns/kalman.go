package returns

import "math"

// What is believed before anything was accepted.
const (
	// priorReturnShare is the part of the evicted clients that comes back, and
	// priorReturnShareSigma its standard deviation.
	priorReturnShare      = 0.92
	priorReturnShareSigma = 0.1
	// minReturnShare is the smallest part that is believed: where fewer come back it is
	// not a habit of clients, and the funnel had better be slow.
	minReturnShare = 0.5
	// priorOrganicSigma is the standard deviation of the organic rate after the first
	// spell, relative to what that spell says: it says little more than the magnitude.
	priorOrganicSigma = 10.0
)

// Process noise: how the organic rate wanders.
const (
	// organicDriftPerSecond is the standard deviation of the organic rate after one
	// second, relative to itself (a random walk: √t times as much after t). That is
	// ±8 % over a minute and ±17 % over five; half of it mistook drift for returns,
	// twice of it learned half as fast.
	organicDriftPerSecond = 0.01
	// minDriftingOrganic, in connections per second, is added to the rate in
	// quadrature: a rate near 0 drifts as one of 10 does and can rise again.
	minDriftingOrganic = 10.0
)

// How far a measurement is believed.
const (
	// maxInnovationSigmas is the most standard deviations that a measurement may
	// differ from what was predicted; what exceeds it is clipped (Huber's ψ: P. J.
	// Huber, Ann. Math. Statist. 35 (1964) 73). When the target refuses, what is
	// known of the clients is not lost.
	maxInnovationSigmas = 3.5
	// likelihoodTemper is the power to which a likelihood is raised (C. C. Holmes,
	// S. G. Walker, Biometrika 104 (2017) 497): drift is no random walk, and no
	// client follows a curve exactly.
	likelihoodTemper = 0.8
)

// kalman is a Kalman filter (R. E. Kalman, J. Basic Engineering 82 (1960) 35) of
// three unknowns:
//
//	lag      connections predicted and not accepted yet:  lag + organic·dt + share·back
//	organic  connections per second that come unasked:    a random walk
//	share    part of the clients that comes back at all:   constant
//
// where back clients would have come back in the dt seconds if all did. What is
// measured is the lag itself: the accepted connections. Being cumulative, it forgives
// a count that is late.
type kalman struct {
	Lag     float64 `json:"lag"`
	Organic float64 `json:"organic"`
	Share   float64 `json:"share"`
	// P is the covariance of the three.
	P covariance `json:"p"`
}

// covariance is a symmetric 3×3 matrix: its upper triangle, row by row, so that it is
// stored as six numbers. Units are those of the two unknowns, multiplied.
type covariance [6]float64

// The entries of a covariance.
const (
	lagLag = iota
	lagOrganic
	lagShare
	organicOrganic
	organicShare
	shareShare
)

// newKalman knows the prior share and nothing else.
func newKalman() kalman {
	return kalman{Share: priorReturnShare, P: covariance{shareShare: priorReturnShareSigma * priorReturnShareSigma}}
}

// begin sets the organic rate, in connections per second, from the first spell.
func (k kalman) begin(organic float64) kalman {
	k.Organic = organic
	k.P[organicOrganic] = priorOrganicSigma * priorOrganicSigma * (organic*organic + 1)
	return k
}

// predict lets dt seconds pass in which back clients would have come back if all did:
//
//	x ← F·x,  P ← F·P·Fᵀ + Q,  F = [1 dt back; 0 1 0; 0 0 1]
//
// Q adds to the variance of lag what is expected to be accepted (Poisson: the
// variance is the mean) and 1, so that it is never 0; and to that of organic its
// drift. It also returns how many are expected.
func (k kalman) predict(dt, back float64) (next kalman, expected float64) {
	expected = k.Organic*dt + k.Share*back
	k.Lag += expected
	p := &k.P
	p[lagLag] += 2*(dt*p[lagOrganic]+back*(p[lagShare]+dt*p[organicShare])) + dt*dt*p[organicOrganic] + back*back*p[shareShare] + expected + 1
	p[lagOrganic] += dt*p[organicOrganic] + back*p[organicShare]
	p[lagShare] += dt*p[organicShare] + back*p[shareShare]
	return k.drift(dt), expected
}

// drift adds to the variance of organic what it wanders in dt seconds.
func (k kalman) drift(dt float64) kalman {
	k.P[organicOrganic] += (k.Organic*k.Organic + minDriftingOrganic*minDriftingOrganic) * organicDriftPerSecond * organicDriftPerSecond * dt
	return k
}

// correct learns that so many connections were accepted, a count with a standard
// deviation of sigma. With the innovation ν = accepted − lag, clipped, its variance
// S = P[lag,lag] + σ² + 1 (never 0) and the gain K = P·h/S, h = [1 0 0]ᵀ:
//
//	x ← x + K·ν,  P ← P − K·hᵀ·P
//
// and lag then sinks by what was accepted. The rate stays at 0 or above, the share
// from minReturnShare to 1. It also returns the tempered log likelihood of the
// measurement, −½·(ν²/S + ln S) but for a constant (F. C. Schweppe, IEEE Trans.
// Inf. Theory 11 (1965) 61).
func (k kalman) correct(accepted, sigma float64) (next kalman, logLikelihood float64) {
	p := k.P
	variance := p[lagLag] + sigma*sigma + 1
	most := maxInnovationSigmas * math.Sqrt(variance)
	innovation := max(-most, min(most, accepted-k.Lag))
	lag, organic, share := p[lagLag]/variance, p[lagOrganic]/variance, p[lagShare]/variance
	k.Lag += lag*innovation - accepted
	k.Organic = max(0, k.Organic+organic*innovation)
	k.Share = min(1, max(minReturnShare, k.Share+share*innovation))
	k.P = covariance{
		lagLag:         p[lagLag] - lag*p[lagLag],
		lagOrganic:     p[lagOrganic] - lag*p[lagOrganic],
		lagShare:       p[lagShare] - lag*p[lagShare],
		organicOrganic: p[organicOrganic] - organic*p[lagOrganic],
		organicShare:   p[organicShare] - organic*p[lagShare],
		shareShare:     p[shareShare] - share*p[lagShare],
	}
	return k, -likelihoodTemper * (innovation*innovation/variance + math.Log(variance)) / 2
}

// settle makes lag 0, without a doubt: what was predicted and what was accepted count
// anew from here.
func (k kalman) settle() kalman {
	k.Lag, k.P[lagLag], k.P[lagOrganic], k.P[lagShare] = 0, 0, 0, 0
	return k
}

// forgetShare makes share what it was before anybody came back.
func (k kalman) forgetShare() kalman {
	k.Share, k.P[organicShare], k.P[shareShare] = priorReturnShare, 0, priorReturnShareSigma*priorReturnShareSigma
	return k
}

// rounded has five significant digits of each number.
func (k kalman) rounded() kalman {
	k.Lag, k.Organic, k.Share = fiveDigits(k.Lag), fiveDigits(k.Organic), fiveDigits(k.Share)
	for i := range k.P {
		k.P[i] = fiveDigits(k.P[i])
	}
	return k
}
