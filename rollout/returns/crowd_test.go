package returns

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// crowd is the clients between two fleets as they really are, in virtual time: what
// an Estimate makes of the two totals is compared with it. The funnel is 1000/3s.
type crowd struct {
	Delay   func(*rand.Rand) float64 // seconds until a client comes back
	Lost    float64                  // share that never does
	Organic float64                  // new connections per second
	Drift   func(t float64) float64  // factor on Organic
	Refuse  [2]float64               // from, to: the target refuses everyone
	Window  int                      // 0: none, and nothing is estimated
	Held    int
	Seed    uint64
}

// outcome is what became of a crowd.
type outcome struct {
	Took   float64 // seconds from the first close to the last
	Done   bool
	Worst  float64 // most that were on their way and came back, in windows
	Peak   int     // the same in clients
	Lost   int
	Held   int // observations at which clients were missing
	Result Estimate
}

func (f outcome) String() string {
	return fmt.Sprintf("worst %.3f windows, took %.0f s, done %v, clients missing %d times", f.Worst, f.Took, f.Done, f.Held)
}

const (
	instant  = 0.05 // seconds
	second   = 20   // instants
	stepCap  = 1000
	stepTook = 3 * second
	stepTime = 3 * time.Second
)

// run runs the crowd until it is empty, at most limit seconds long.
func (c crowd) run(limit float64) (out outcome) {
	rng := rand.New(rand.NewPCG(c.Seed, 7))
	var (
		back              = map[int]int{} // instant → clients that try (again)
		accepted          []uint64        // total by instant
		gone, came        uint64
		truth             int
		plan              []int // closes by instant in the running step
		next, begin, last = 0, -1, 0
		n                 int // closes of that step
		r                 = New(time.Minute)
	)
	held := c.Held
	retry := func(now, n int) {
		for range n {
			back[now+1+int(c.Delay(rng)/instant)]++
		}
	}
	// look observes closes as of now and what was accepted up to half a second ago.
	look := func(i int) Estimate {
		k := max(0, i-rng.IntN(second/2))
		clock := func(i int) time.Time { return time.Unix(0, 0).Add(time.Duration(i) * time.Second / second) }
		return r.Observe(Observation{Now: clock(i), Evicted: gone, AsOf: clock(k), Accepted: accepted[k]})
	}
	for i := 0; float64(i)*instant < limit && held > 0; i++ {
		at := float64(i) * instant
		if len(plan) > 0 {
			for range plan[0] {
				held, gone, last = held-1, gone+1, i
				if rng.Float64() < c.Lost {
					out.Lost++
					continue
				}
				truth++
				retry(i, 1)
			}
			plan = plan[1:]
		}
		tries := back[i]
		delete(back, i)
		if at >= c.Refuse[0] && at < c.Refuse[1] {
			retry(i, tries)
		} else {
			truth -= tries
			came += uint64(tries)
			came += poisson(rng, c.Organic*c.Drift(at)*instant)
		}
		accepted = append(accepted, came)
		out.Peak = max(out.Peak, truth)
		if c.Window > 0 {
			out.Worst = max(out.Worst, float64(truth)/float64(c.Window))
			if i%(second/2) == 0 {
				r = look(i)
				if r.Missing() {
					out.Held++
				}
				if len(plan) > 0 && r.Stops(c.Window, n*len(plan)/stepTook, stepTime*time.Duration(len(plan))/stepTook) {
					plan, next = nil, i+stepTook
				}
			}
		}
		if i < next || len(plan) > 0 {
			continue
		}
		n = min(stepCap, held)
		if c.Window > 0 {
			r = look(i)
			n = min(n, r.Room(c.Window, stepCap, stepTime))
			if !r.Ready() {
				n = 0
			}
		}
		if n == 0 {
			next = i + second/2
			continue
		}
		if begin < 0 {
			begin = i
		}
		next, plan = i+stepTook, make([]int, stepTook)
		for k := range n {
			plan[k*stepTook/n]++
		}
	}
	out.Took, out.Done, out.Result = float64(last-begin)*instant, held == 0, r
	return out
}

func poisson(rng *rand.Rand, mean float64) uint64 {
	if mean > 30 {
		return uint64(max(0, math.Round(mean+math.Sqrt(mean)*rng.NormFloat64())))
	}
	n, p := uint64(0), math.Exp(-mean)
	for u := rng.Float64(); u > p; u *= rng.Float64() {
		n++
	}
	return n
}

type wait struct {
	name string
	of   func(*rand.Rand) float64
	mean float64
}

func exponential(mean float64) func(*rand.Rand) float64 {
	return func(rng *rand.Rand) float64 { return rng.ExpFloat64() * mean }
}

var (
	delays = []wait{
		{"at once", func(*rand.Rand) float64 { return 0 }, 0},
		{"exponential 1 s", exponential(1), 1},
		{"exponential 5 s", exponential(5), 5},
		{"exponential 20 s", exponential(20), 20},
		{"uniform 0-20 s", func(rng *rand.Rand) float64 { return rng.Float64() * 20 }, 10},
	}
	losses   = []float64{0, 0.05, 0.2}
	organics = []float64{10, 100, 500}
	refusals = [][2]float64{{}, {60, 120}, {60, 260}}
	windows  = []int{1000, 2000, 3000, 10_000}
	drifts   = []func(t float64) float64{
		func(t float64) float64 { return 1 + 0.2*math.Sin(2*math.Pi*t/300) },
		func(t float64) float64 { return 1 - 0.2*math.Sin(2*math.Pi*t/300) },
		func(t float64) float64 { return 1 + 0.2*min(1, t/240) },
		func(t float64) float64 { return 1 - 0.2*min(1, t/240) },
	}
)
