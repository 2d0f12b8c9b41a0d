package returns

import (
	"math"
	"testing"
)

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*max(1, math.Abs(b)) }

func TestBackBy(t *testing.T) {
	for _, c := range []struct {
		stages    int
		age, want float64
	}{
		{1, 0, 0}, {2, 0, 0},
		{1, 4, 1 - 1/math.E}, {2, 4, 1 - 3/(math.E*math.E)},
		{1, 1e4, 1}, {2, 1e4, 1},
	} {
		if got := (curve{4, c.stages}).backBy(c.age); !near(got, c.want) {
			t.Errorf("%v is back by %d stages of 4 s in all after %v s, want %v", got, c.stages, c.age, c.want)
		}
	}
}

// TestAdvance: no client appears or vanishes, a spell is as good as two halves, and
// those evicted at once come back by the curve.
func TestAdvance(t *testing.T) {
	for _, c := range curves {
		start := make([]float64, c.stages)
		start[0] = 100
		back, after := c.advance(start, 0, 2)
		if !near(back, 100*c.backBy(2)) || !near(back+sum(after), 100) {
			t.Errorf("%+v: %v of 100 are back and %v are not, want %v back", c, back, after, 100*c.backBy(2))
		}
		if start[0] != 100 {
			t.Errorf("%+v: advance changed what it was given", c)
		}
		whole, after := c.advance(start, 60, 2)
		one, half := c.advance(start, 30, 1)
		two, half := c.advance(half, 30, 1)
		if !near(one+two, whole) || !near(sum(half), sum(after)) {
			t.Errorf("%+v: %v are back after two seconds, and %v after one and one", c, whole, one+two)
		}
		if none, after := c.advance(make([]float64, c.stages), 0, 2); none != 0 || sum(after) != 0 {
			t.Errorf("%+v: %v come back of none, %v are left", c, none, after)
		}
	}
}
