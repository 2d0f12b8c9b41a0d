package sim

import (
	"flag"
	"testing"
	"time"
)

var full = flag.Bool("full", false, "play every scenario with ten million connections")

// sizeOf is how large the test plays a scenario: with ten million connections the
// first, which nothing disturbs, and with -full each.
func sizeOf(s Scenario) Size {
	switch {
	case *full:
		return Full
	case testing.Short():
		return Size{Connections: 100_000, Instances: 40}
	case s.Name == Scenarios[0].Name:
		return Full
	}
	return Size{Connections: 300_000, Instances: 100}
}

// TestScenarios plays every story.
func TestScenarios(t *testing.T) {
	for _, s := range Scenarios {
		t.Run(s.Name, func(t *testing.T) {
			size := sizeOf(s)
			t.Parallel() // each is a world of its own
			began := time.Now()
			r := s.Run(size)
			for _, f := range r.Faults {
				t.Error(f)
			}
			t.Logf("%v: took %v (planned %v), ended %v, %d closes, peak %d of %d, %.2f in 100 ms, out %d, fill %.3f, mean %.3f, most %d, lost %d, %d looks",
				time.Since(began).Round(10*time.Millisecond), r.Took.Round(10*time.Millisecond), r.Planned, r.Ended.Round(10*time.Millisecond), r.Closes, r.Peak, r.Cap, r.Trickle, r.Out, r.Fill, r.Mean, r.Most, r.Lost, r.Looks)
			t.Log(r.Reasons)
		})
	}
}

// A window is half open: two closes exactly its length apart are not in one.
func TestMeter(t *testing.T) {
	m := meter{length: time.Second}
	for i, want := range []int{1, 2, 3, 3, 3} {
		if got := m.add(time.Duration(i) * time.Second / 3); got != want {
			t.Errorf("close %d: %d in a second, want %d", i, got, want)
		}
	}
	for i := range 5000 {
		if got := m.add(10*time.Second + time.Duration(i)); got != i+1 {
			t.Fatalf("%d in a second, want %d", got, i+1)
		}
	}
}
