package returns

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"sync"
	"testing"
	"time"
)

// crowds are all combinations of how many clients never come back, how many
// connections come by themselves and how that rate drifts, for one window, one time in
// which the target refuses and one way to come back.
func crowds(window int, refuse [2]float64, w wait) (all []crowd) {
	for k, lost := range losses {
		for j, organic := range organics {
			for i, drift := range drifts {
				if turn := k + j; i%2 != turn%2 || testing.Short() && i/2 != turn/2%2 {
					continue // two of them each, in turn
				}
				all = append(all, crowd{Delay: w.of, Lost: lost, Organic: organic, Drift: drift, Refuse: refuse, Window: window, Held: 30_000, Seed: uint64(i)})
			}
		}
	}
	return all
}

// inEachWindow runs check as a parallel subtest for each window, refusal and delay,
// and logs the worst of each.
func inEachWindow(t *testing.T, check func(t *testing.T, window int, refuse [2]float64, w wait) (worst, took float64)) {
	var mu sync.Mutex
	table := map[string]string{}
	t.Run("each", func(t *testing.T) {
		for _, window := range windows {
			for _, refuse := range refusals {
				for _, w := range delays {
					name := fmt.Sprintf("window %5d, refuses %3.0f s, back %s", window, refuse[1]-refuse[0], w.name)
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						worst, took := check(t, window, refuse, w)
						mu.Lock()
						defer mu.Unlock()
						table[name] = fmt.Sprintf("worst %.2f windows, at most %4.0f s", worst, took)
					})
				}
			}
		}
	})
	for _, window := range windows {
		for _, refuse := range refusals {
			for _, w := range delays {
				name := fmt.Sprintf("window %5d, refuses %3.0f s, back %s", window, refuse[1]-refuse[0], w.name)
				t.Log(name, table[name])
			}
		}
	}
}

// TestReturnsKeepTheWindow: where returns are estimated, no more than 1.2 windows
// are ever on their way, and it ends.
func TestReturnsKeepTheWindow(t *testing.T) {
	inEachWindow(t, func(t *testing.T, window int, refuse [2]float64, w wait) (worst, took float64) {
		for _, c := range crowds(window, refuse, w) {
			f := c.run(3000)
			worst, took = max(worst, f.Worst), max(took, f.Took)
			if f.Worst > 1.2 || !f.Done {
				t.Errorf("lost %v, organic %v, seed %d: %v", c.Lost, c.Organic, c.Seed, f)
			}
		}
		return worst, took
	})
}

// TestReturnsTakeNoTime: a window that does not bind makes a rollout of 30,000 at
// most a tenth and the probe longer. It does not bind, by min(cap, window −
// outstanding), where a step more than are on their way without a window fits into
// it; nobody knows beforehand who is never back, so all count. The probe takes 25 s
// and as long as clients take on average; where a step and those on their way fit
// into half the window, there is none.
func TestReturnsTakeNoTime(t *testing.T) {
	slowest, longest := 0.0, 0.0
	for _, w := range delays {
		for _, c := range crowds(0, [2]float64{}, w) {
			alone := c.run(3000).Took
			all := c
			all.Lost = 0
			need := all.run(3000).Peak + stepCap
			for _, window := range []int{need, need + stepCap/2, 2 * need, 10_000} {
				if window < need {
					continue
				}
				c.Window = window
				f := c.run(3000)
				over, probe := f.Took-1.1*alone, 25+w.mean
				longest = max(longest, over)
				if window >= 2*need {
					probe, slowest = 0, max(slowest, f.Took/alone)
				}
				if over > probe {
					t.Errorf("window %d, back %s, lost %v, organic %v, seed %d: took %.0f s in place of %.0f; %v", window, w.name, c.Lost, c.Organic, c.Seed, f.Took, alone, f)
				}
			}
		}
	}
	t.Logf("at most %.2f times as long in half a window, at most %.0f s and a tenth longer in a whole one", slowest, longest)
}

// TestReturnsAreAValue: what is stored is all there is, it stays small, and
// observing changes nothing but what it returns.
func TestReturnsAreAValue(t *testing.T) {
	c := crowd{Delay: exponential(5), Lost: 0.05, Organic: 123.456, Drift: drifts[0], Refuse: [2]float64{40, 50}, Window: 3000, Held: 20_000}
	r := c.run(3000).Result
	stored, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if len(stored) > 7_000 {
		t.Errorf("stored in %d bytes", len(stored))
	}
	var again Estimate
	if err := json.Unmarshal(stored, &again); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		now := r.Seen.Add(time.Second).UTC()
		evicted, accepted := r.SawEvicted+uint64(100*i), r.SawAccepted+uint64(150*i)
		t := Observation{now, evicted, now, accepted}
		r, again = r.Observe(t), again.Observe(t)
	}
	one, _ := json.Marshal(r)
	other, _ := json.Marshal(again)
	if string(one) != string(other) {
		t.Errorf("after storing it is another:\n%s\n%s", one, other)
	}
	later := r.Seen.Add(time.Minute)
	r.Observe(Observation{later, r.SawEvicted + 9999, later, r.SawAccepted})
	if after, _ := json.Marshal(r); !reflect.DeepEqual(one, after) {
		t.Errorf("observing changed what it was called on")
	}
}

// TestReturnsTell: what is shown is near the truth: the curve, its plateau, the
// organic rate, the clients that are never back, and the smallest window.
func TestReturnsTell(t *testing.T) {
	near := func(what string, got, want, by float64) {
		t.Helper()
		if math.Abs(got-want) > by {
			t.Errorf("%s is %.2f, want %.2f ± %.2f", what, got, want, by)
		}
	}
	c := crowd{Delay: exponential(5), Lost: 0.2, Organic: 50, Drift: func(float64) float64 { return 1 }, Window: 10_000, Held: 60_000}
	f := c.run(3000)
	r := f.Result
	near("plateau", r.Back(time.Hour), 0.8, 0.05)
	near("back within 5 s", r.Back(5*time.Second), 0.8*(1-1/math.E), 0.08)
	near("back at once", r.Back(0), 0, 0.01)
	near("return time", r.Takes().Seconds(), 5, 1)
	near("never back", float64(r.NeverBack()), float64(f.Lost), 0.05*60_000)
	near("organic rate", r.Organic(), 50, 15)
	near("smallest window", float64(r.MinWindow()), 3*math.Sqrt(250), 12)
}

// TestReturnsMissing: no client at all comes back, but the target is there: each time
// the funnel holds for the return timeout and then goes on.
func TestReturnsMissing(t *testing.T) {
	c := crowd{Delay: exponential(1), Lost: 1, Organic: 100, Drift: func(float64) float64 { return 1 }, Window: 3000, Held: 10_000}
	f := c.run(3000)
	if !f.Done || f.Held < 30 {
		t.Errorf("%v; want the funnel held for half a minute at least, and then go on", f)
	}
	// The target refuses for ever: held for ever.
	c.Lost, c.Refuse = 0, [2]float64{30, math.Inf(1)}
	if f := c.run(1000); f.Done || !f.Result.Missing() || f.Worst > 1 {
		t.Errorf("%v; want the funnel held as long as green refuses", f)
	}
}

// TestReturnsCountABurst: the target accepts again after a minute, and every client
// that it refused is there a second later, organic ones too. Most of them count as
// returned; none does that may be organic.
func TestReturnsCountABurst(t *testing.T) {
	const organic, before, refused = 20, 60, 60
	c := crowd{Delay: exponential(20), Lost: 0.2, Organic: organic, Drift: func(float64) float64 { return 1 }, Refuse: [2]float64{before, math.Inf(1)}, Window: 3000, Held: 30_000}
	f := c.run(before + refused)
	r, out := f.Result, int(f.Worst*float64(c.Window))
	if !r.Missing() || r.Outstanding() < out {
		t.Fatalf("%d of %d are on their way, missing %v; want all of them, and missing", r.Outstanding(), out, r.Missing())
	}
	again := func(burst int) int {
		came := r.SawAccepted + uint64(burst) + organic
		at := r.Seen.Add(time.Second)
		return r.Observe(Observation{at, r.SawEvicted, at, came}).Outstanding()
	}
	if all, left := r.Outstanding(), again(out+organic*refused); left > all/3 {
		t.Errorf("%d are on their way when %d of %d are back", left, out, all)
	}
	if left := again(organic * refused); left < out {
		t.Errorf("%d of %d are on their way when only organic ones came", left, out)
	}
}

// TestReturnsCountNothingTwice: totals that fall, observations out of the blue.
func TestReturnsCountNothingTwice(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	at := func(after time.Duration, evicted, accepted uint64) Observation {
		return Observation{now.Add(after), evicted, now.Add(after), accepted}
	}
	r := New(time.Minute).Observe(at(0, 500, 900))
	if r.Outstanding() != 0 || r.Room(100, 100, 3*time.Second) != 100 {
		t.Errorf("at first %d are on their way, room %d; want 0 and 100", r.Outstanding(), r.Room(100, 100, 3*time.Second))
	}
	r = r.Observe(at(time.Second, 560, 900))
	r = r.Observe(at(2*time.Second, 520, 0)) // an instance cannot be seen for a moment
	r = r.Observe(at(3*time.Second, 560, 910))
	if r.Evicted != 60 || r.Accepted != 10 || r.Outstanding() > 60 {
		t.Errorf("evicted %d, accepted %d, outstanding %d; want 60, 10 and at most 60", r.Evicted, r.Accepted, r.Outstanding())
	}
	r = New(time.Minute).Observe(at(0, 0, 0))
	for i := range 10 {
		if r.Ready() {
			t.Errorf("ready after %d s", i)
		}
		r = r.Observe(at(time.Duration(i+1)*time.Second, 0, uint64(100*(i+1))))
	}
	if !r.Ready() {
		t.Errorf("not ready after 10 s")
	}
	if r = r.Observe(at(10100*time.Millisecond, 700, 1000)); r.Outstanding() != 700 {
		t.Errorf("%d of 700 just evicted are on their way", r.Outstanding())
	}
}
