package returns

import (
	"encoding/json"
	"testing"
	"time"
)

var start = time.Unix(1_800_000_000, 0).UTC()

// after is what both totals are so long after start, known at once.
func after(d time.Duration, evicted, accepted int) Observation {
	return Observation{Now: start.Add(d), Evicted: uint64(evicted), AsOf: start.Add(d), Accepted: uint64(accepted)}
}

// observed is the estimate after an observation each second.
func observed(seconds int, totals func(second int) (evicted, accepted int)) Estimate {
	r := New(time.Minute)
	for i := range seconds + 1 {
		evicted, accepted := totals(i)
		r = r.Observe(after(time.Duration(i)*time.Second, evicted, accepted))
	}
	return r
}

// TestBorders: what is estimated where there is nothing to infer, or all of it at once.
func TestBorders(t *testing.T) {
	for name, c := range map[string]struct {
		totals      func(second int) (evicted, accepted int)
		outstanding [2]int        // from, to
		never       int           // at most
		organic     [2]float64    // from, to
		takes       time.Duration // at most
		missing     bool
		room        int // for a window of 300, 200 at most
	}{
		"nothing happens": {
			totals:  func(int) (int, int) { return 0, 0 },
			organic: [2]float64{0, 0}, takes: time.Minute, room: 200,
		},
		"no client is evicted": {
			totals:  func(s int) (int, int) { return 0, 100 * s },
			organic: [2]float64{90, 110}, takes: time.Minute, room: 200,
		},
		"all come back at once": {
			totals:      func(s int) (int, int) { n := 100 * max(0, min(20, s-10)); return n, 50*s + n },
			outstanding: [2]int{0, 20}, never: 20, organic: [2]float64{40, 60}, takes: 500 * time.Millisecond, room: 200,
		},
		"none comes back, organic connections neither": {
			totals:      func(s int) (int, int) { return 100 * max(0, min(3, s-10)), 50 * min(10, s) },
			outstanding: [2]int{300, 300}, organic: [2]float64{40, 60}, takes: time.Minute, missing: true, room: 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := observed(40, c.totals)
			if n := r.Outstanding(); n < c.outstanding[0] || n > c.outstanding[1] || r.AtMost() < n || r.AtMost() > int(r.Evicted) {
				t.Errorf("%d are outstanding, %d at most, want %v", n, r.AtMost(), c.outstanding)
			}
			if n := r.NeverBack(); n > c.never {
				t.Errorf("%d are never back, want %d at most", n, c.never)
			}
			if rate := r.Organic(); rate < c.organic[0] || rate > c.organic[1] {
				t.Errorf("%.1f organic connections per second, want %v", rate, c.organic)
			}
			if r.Takes() > c.takes || r.Missing() != c.missing || r.MinWindow() < 1 {
				t.Errorf("returns take %v, missing %v, window %d at least; want %v at most, and missing %v", r.Takes(), r.Missing(), r.MinWindow(), c.takes, c.missing)
			}
			if n := r.Room(300, 200, 3*time.Second); n != c.room {
				t.Errorf("room for %d, want %d", n, c.room)
			}
			if !r.Ready() || !r.Whole() {
				t.Errorf("ready %v, whole %v", r.Ready(), r.Whole())
			}
		})
	}
}

// TestBackwards: an observation from before the last, with lower totals, changes
// neither an estimate nor what is made of later ones.
func TestBackwards(t *testing.T) {
	totals := func(s int) (int, int) { n := 50 * max(0, s-10); return n, 80*s + n*9/10 }
	told := func(r Estimate) string {
		r.Marks = nil // one more of the same
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	r := observed(25, totals)
	for name, back := range map[string]Observation{
		"older, and less":    after(20*time.Second, 400, 1000),
		"older, all from 0":  after(20*time.Second, 0, 0),
		"older, the same":    after(20*time.Second, int(r.SawEvicted), int(r.SawAccepted)),
		"before the first":   after(-time.Hour, 0, 0),
		"at once, and less":  after(25*time.Second, 400, 1000),
		"at once, the same":  after(25*time.Second, int(r.SawEvicted), int(r.SawAccepted)),
		"only accepted fell": after(25*time.Second, int(r.SawEvicted), 0),
	} {
		again := r.Observe(back)
		if !r.Knows(back) || told(again) != told(r) {
			t.Errorf("%s: the estimate is\n%s, it was\n%s", name, told(again), told(r))
		}
		evicted, accepted := totals(26)
		next := after(26*time.Second, evicted, accepted)
		if r.Knows(next) || told(again.Observe(next)) != told(r.Observe(next)) {
			t.Errorf("%s: the next is\n%s, without it\n%s", name, told(again.Observe(next)), told(r.Observe(next)))
		}
	}
}
