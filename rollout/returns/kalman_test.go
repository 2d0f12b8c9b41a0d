package returns

import (
	"encoding/json"
	"math"
	"testing"
)

// matrix is 3×3, over lag, organic and share.
type matrix [3][3]float64

func (p covariance) matrix() matrix {
	return matrix{
		{p[lagLag], p[lagOrganic], p[lagShare]},
		{p[lagOrganic], p[organicOrganic], p[organicShare]},
		{p[lagShare], p[organicShare], p[shareShare]},
	}
}

func (a matrix) times(b matrix) (c matrix) {
	for i := range 3 {
		for j := range 3 {
			for k := range 3 {
				c[i][j] += a[i][k] * b[k][j]
			}
		}
	}
	return c
}

func (a matrix) transposed() (c matrix) {
	for i := range 3 {
		for j := range 3 {
			c[i][j] = a[j][i]
		}
	}
	return c
}

func (a matrix) near(b matrix) bool {
	for i := range 3 {
		for j := range 3 {
			if math.Abs(a[i][j]-b[i][j]) > 1e-9*max(1, math.Abs(a[i][j])) {
				return false
			}
		}
	}
	return true
}

var known = kalman{Lag: 12, Organic: 40, Share: 0.8, P: covariance{90, 7, -0.5, 16, -0.03, 0.004}}

// TestPredictAndCorrect holds both steps against their equations in whole matrices.
func TestPredictAndCorrect(t *testing.T) {
	const dt, back, sigma = 1.5, 60.0, 3.0
	next, expected := known.predict(dt, back)
	if want := 40*dt + 0.8*back; expected != want || next.Lag != 12+want || next.Organic != 40 || next.Share != 0.8 {
		t.Errorf("predicted %+v, expected %v; want %v more", next, expected, want)
	}
	f := matrix{{1, dt, back}, {0, 1, 0}, {0, 0, 1}}
	want := f.times(known.P.matrix()).times(f.transposed())
	want[0][0] += expected + 1
	want[1][1] += (40*40 + 10*10) * 0.01 * 0.01 * dt
	if !next.P.matrix().near(want) {
		t.Errorf("predicted covariance %v, want %v", next.P.matrix(), want)
	}

	p, s := next.P.matrix(), next.P[lagLag]+sigma*sigma+1
	for name, c := range map[string]struct{ accepted, innovation float64 }{
		"as predicted":  {next.Lag, 0},
		"a few more":    {next.Lag + 5, 5},
		"none":          {next.Lag - 3*math.Sqrt(s), -3 * math.Sqrt(s)},
		"clipped below": {next.Lag - 9*math.Sqrt(s), -3.5 * math.Sqrt(s)},
		"clipped above": {next.Lag + 9*math.Sqrt(s), 3.5 * math.Sqrt(s)},
	} {
		got, logLikelihood := next.correct(c.accepted, sigma)
		gain := matrix{{p[0][0] / s}, {p[1][0] / s}, {p[2][0] / s}} // K·hᵀ: only its first column
		want := gain.times(p)
		for i := range 3 {
			for j := range 3 {
				want[i][j] = p[i][j] - want[i][j]
			}
		}
		if !got.P.matrix().near(want) {
			t.Errorf("%s: corrected covariance %v, want %v", name, got.P.matrix(), want)
		}
		state := matrix{{got.Lag, got.Organic, got.Share}}
		if want := (matrix{{
			next.Lag + gain[0][0]*c.innovation - c.accepted,
			max(0, next.Organic+gain[1][0]*c.innovation),
			min(1, max(0.5, next.Share+gain[2][0]*c.innovation)),
		}}); !state.near(want) {
			t.Errorf("%s: corrected to %v, want %v", name, state[0], want[0])
		}
		if want := -0.8 * (c.innovation*c.innovation/s + math.Log(s)) / 2; math.Abs(logLikelihood-want) > 1e-9 {
			t.Errorf("%s: log likelihood %v, want %v", name, logLikelihood, want)
		}
	}
}

// TestBeliefsStayPossible: no measurement makes the organic rate negative, or the share
// of clients that comes back more than all of them or less than half.
func TestBeliefsStayPossible(t *testing.T) {
	doubtful := kalman{Organic: 1, Share: 0.9, P: covariance{100, 500, 5, 1e4, 0, 1}}
	for name, c := range map[string]struct{ accepted, organic, share float64 }{
		"far more": {1e6, 1 + 500.0/101*3.5*math.Sqrt(101), 1},
		"far less": {-1e6, 0, 0.5},
	} {
		got, _ := doubtful.correct(c.accepted, 0)
		if math.Abs(got.Organic-c.organic) > 1e-9 || got.Share != c.share {
			t.Errorf("%s: organic %v, share %v; want %v and %v", name, got.Organic, got.Share, c.organic, c.share)
		}
	}
}

// TestCovarianceIsStoredAsSixNumbers: the upper triangle, row by row, whatever the
// entries are called.
func TestCovarianceIsStoredAsSixNumbers(t *testing.T) {
	for _, c := range []struct {
		p    covariance
		json string
	}{
		{covariance{}, `[0,0,0,0,0,0]`},
		{covariance{lagLag: 1, lagOrganic: 2, lagShare: 3, organicOrganic: 4, organicShare: 5, shareShare: 6}, `[1,2,3,4,5,6]`},
		{covariance{lagLag: 12345, lagOrganic: -0.000012345, lagShare: 1.5e-7, organicOrganic: 1e21, shareShare: 0.01}, `[12345,-0.000012345,1.5e-7,1e+21,0,0.01]`},
	} {
		stored, err := json.Marshal(c.p)
		if err != nil || string(stored) != c.json {
			t.Errorf("%v is stored as %s (%v), want %s", c.p, stored, err, c.json)
		}
		var p covariance
		if err := json.Unmarshal([]byte(c.json), &p); err != nil || p != c.p {
			t.Errorf("%s is read as %v (%v), want %v", c.json, p, err, c.p)
		}
	}
	const stored = `{"away":[7,8],"lag":1,"organic":2,"share":0.75,"p":[1,2,3,4,5,6],"log":-3,"began":true}`
	var f filter
	if err := json.Unmarshal([]byte(stored), &f); err != nil {
		t.Fatal(err)
	}
	if again, err := json.Marshal(f); err != nil || string(again) != stored {
		t.Errorf("a filter is stored as %s (%v), want %s", again, err, stored)
	}
}
