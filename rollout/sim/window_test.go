package sim

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// back is how long clients take to return, mean on average.
type back struct {
	name string
	mean time.Duration
	of   func(*rand.Rand) time.Duration
}

var backs = []back{
	{"at once", 0, func(*rand.Rand) time.Duration { return 0 }},
	{"exp 1s", time.Second, exponential(time.Second)},
	{"exp 5s", 5 * time.Second, exponential(5 * time.Second)},
	{"exp 20s", 20 * time.Second, exponential(20 * time.Second)},
	{"uniform 20s", 10 * time.Second, uniform(20 * time.Second)},
}

var words = map[Tells]string{Tickets: "tickets are shown", Returns: "returns are told", Nothing: "nothing is told", Nobody: "nobody is said to return"}

// TestWindow holds the truth against the window in every air: how long clients
// take to return, how many never do, how many come by themselves with a rate that
// drifts by a fifth, and a green that refuses everyone in the middle. What is
// outstanding in truth stays within the window where returns are told, and within
// 1.2 windows where they are estimated.
func TestWindow(t *testing.T) {
	worst, mu := map[Tells]float64{}, sync.Mutex{}
	t.Cleanup(func() {
		for tells, most := range worst {
			t.Logf("the most on their way at once: %.2f windows where %s", most, words[tells])
		}
	})
	for _, back := range backs {
		t.Run(back.name, func(t *testing.T) {
			t.Parallel()
			for _, air := range airs() {
				never, organic, refuses, tells := air.never, air.organic, air.refuses, air.tells
				name := fmt.Sprintf("%s, %.0f%% lost, %.0f/s, refuses %s, %s", back.name, 100*never, organic, refuses, words[tells])
				s := Scenario{Name: name, Live: discovery.Green, conf: func(size Size) Config {
					c := base(size)
					c.Policy.Funnel.Close, c.Policy.Window = 1000, 3000
					c.Policy.ReturnTimeout = units.Duration(2 * time.Minute)
					c.Back, c.Never, c.Organic, c.Drift, c.Tells = back.of, never, organic, 5*time.Minute, tells
					return c
				}, play: func(w *World) {
					if refuses > 0 {
						w.half(func() {
							w.trouble()
							w.Fleet.sulk = 1
							w.after(refuses, func() { w.Fleet.sulk = 0 })
						})
					}
				}}
				r := s.Run(Size{Connections: 30_000, Instances: 6})
				for _, f := range r.Faults {
					t.Errorf("%s: %s", name, f)
				}
				mu.Lock()
				worst[tells] = max(worst[tells], float64(r.Out)/3000)
				mu.Unlock()
			}
		})
	}
}

// air is how clients come and go while green may refuse everybody for a while.
type air struct {
	never, organic float64
	refuses        time.Duration
	tells          Tells
}

// airs are all of them with -full, the middle rate of arrivals without, and the two
// ends of each with -short.
func airs() (all []air) {
	for _, never := range []float64{0, 0.05, 0.2} {
		for _, organic := range []float64{10, 100, 500} {
			for _, refuses := range []time.Duration{0, time.Minute, 200 * time.Second} {
				between := never == 0.05 || refuses == time.Minute
				if !*full && organic != 100 || testing.Short() && between {
					continue
				}
				for _, tells := range []Tells{Tickets, Returns, Nothing} {
					all = append(all, air{never, organic, refuses, tells})
				}
			}
		}
	}
	return all
}

// TestWindowTakesNoTime: an undisturbed rollout whose window does not bind, because a
// step more fits into it than are on their way without a window, takes at most a
// tenth longer, and where returns are estimated the probe: 25 s, and as long as
// clients take on average. Nobody knows beforehand who never returns, so all count as
// on their way; where returns are told, until the return timeout, which binds.
func TestWindowTakesNoTime(t *testing.T) {
	const cap = 1000
	longest := map[Tells]time.Duration{}
	for _, back := range backs {
		for _, organic := range []float64{10, 100, 500} {
			for _, tells := range []Tells{Tickets, Returns, Nothing} {
				if testing.Short() && organic != 100 {
					continue
				}
				run := func(window units.Window, never float64) Report {
					s := Scenario{Live: discovery.Green, Within: time.Hour, conf: func(size Size) Config {
						c := base(size)
						c.Policy.Funnel.Close, c.Policy.Window = cap, window
						c.Back, c.Never, c.Organic, c.Drift, c.Tells = back.of, never, organic, 5*time.Minute, tells
						return c
					}}
					return s.Run(Size{Connections: 30_000, Instances: 6})
				}
				window := units.Window(run(units.NoWindow, 0).Out + cap)
				for _, never := range []float64{0, 0.05, 0.2} {
					if never > 0 && tells != Nothing {
						continue
					}
					name := fmt.Sprintf("%s, %.0f%% lost, %.0f/s, %s, window %d", back.name, 100*never, organic, words[tells], window)
					alone, bound := run(units.NoWindow, never), run(window, never)
					most := alone.Took * 11 / 10
					longest[tells] = max(longest[tells], bound.Took-most)
					if tells == Nothing {
						most += 25*time.Second + back.mean
					}
					for _, f := range append(alone.Faults, bound.Faults...) {
						t.Errorf("%s: %s", name, f)
					}
					if bound.Took > most {
						t.Errorf("%s: took %v, want at most %v", name, bound.Took, most)
					}
				}
			}
		}
	}
	for tells, most := range longest {
		t.Logf("longer than a tenth: %v where %s", most, words[tells])
	}
}
