package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
)

// Size is how large a simulation is.
type Size struct{ Connections, Instances int }

// Full is ten million connections over two thousand instances.
var Full = Size{Connections: 10_000_000, Instances: 2000}

// every is T in all scenarios; the cap is a hundredth of the connections.
const every = 3 * time.Second

// Scenario is one story of a rollout.
type Scenario struct {
	Name string
	// Shows are reasons that have to be given.
	Shows []rollout.Code
	// Live is which colour is live in the end.
	Live discovery.Colour
	// Mean is what the mean number of closes per client has to be below; 0 is
	// once for each client, exactly.
	Mean float64
	conf func(Size) Config
	// play happens after the promotion.
	play func(*World)
	// force promotes although the plan has problems.
	force bool
}

// base is half of the instances each colour, and clients that come back within
// a few seconds.
func base(s Size) Config {
	p := rollout.DefaultPolicy()
	p.Funnel = rollout.Funnel{Close: s.Connections / 100, Every: rollout.Duration(every)}
	return Config{
		Blue: s.Instances / 2, Green: s.Instances / 2, Connections: s.Connections, Policy: p,
		Back: exponential(time.Second), Detect: time.Second,
	}
}

func exponential(mean time.Duration) func(*rand.Rand) time.Duration {
	return func(r *rand.Rand) time.Duration { return time.Duration(r.ExpFloat64() * float64(mean)) }
}

// Run plays the scenario.
func (s Scenario) Run(size Size) Report {
	w := New(s.conf(size))
	_, w.promises.rooms = w.room(discovery.Green)
	w.Run(5*time.Second, func() bool { return false })
	began := w.now
	plan, err := rollout.MakePlan(w.state, w.see(), discovery.Green, w.conf.Policy, w.clock())
	if err == nil {
		err = w.Do(rollout.Promote{Service: "chat", Target: discovery.Green, Force: s.force})
	}
	if err != nil {
		w.promises.fault(w.now, "refused: %v", err)
		return w.Report()
	}
	if s.play != nil {
		s.play(w)
	}
	if !w.Run(2*time.Hour, w.Steady) {
		w.promises.fault(w.now, "not done after 2 h: %s", w.reason.Text)
	}
	r := w.Report()
	r.Took, r.Planned = w.now-began, plan.Takes.D()
	s.check(w, &r)
	return r
}

// check holds the end of the story against what it should be.
func (s Scenario) check(w *World, r *Report) {
	fault := func(format string, args ...any) { r.Faults = append(r.Faults, fmt.Sprintf(format, args...)) }
	if w.state.Live != s.Live {
		fault("%s is live in the end, want %s", w.state.Live, s.Live)
	}
	if n := w.clients.held[side(s.Live.Other())]; n != 0 {
		fault("%s still holds %d", s.Live.Other(), n)
	}
	for _, c := range s.Shows {
		if _, ok := r.Reasons[c]; !ok {
			fault("the reason %s was never given", c)
		}
	}
	switch {
	case s.Mean == 0 && r.Most > 1:
		fault("a client was closed %d times", r.Most)
	case s.Mean > 0 && r.Mean > s.Mean:
		fault("clients were closed %.3f times on average, want below %.3f", r.Mean, s.Mean)
	}
}

// half calls do when half of the old side's connections are gone.
func (w *World) half(do func()) {
	w.when(func() bool { return w.promises.closes >= w.conf.Connections/2 }, do)
}

// when calls do once as soon as the condition holds, within a tick.
func (w *World) when(holds func() bool, do func()) {
	w.after(tick, func() {
		if holds() {
			do()
			return
		}
		w.when(holds, do)
	})
}

// colour lists the instances of a colour that exist.
func (w *World) colour(c discovery.Colour) []*instance {
	var all []*instance
	for _, in := range w.instances {
		if in.Colour == c && !in.dead && !in.gone {
			all = append(all, in)
		}
	}
	return all
}

// Scenarios are the stories of the issue.
var Scenarios = []Scenario{
	{Name: "undisturbed", Live: discovery.Green, conf: base},
	{Name: "sick-green", Live: discovery.Green, conf: base, Shows: []rollout.Code{rollout.TargetSick},
		play: func(w *World) { w.half(w.sicken) }},
	{Name: "dead-blue", Live: discovery.Green, conf: base, play: func(w *World) {
		w.half(func() {
			all := w.colour(discovery.Blue)
			for _, in := range all[:len(all)/10] {
				w.Kill(in)
			}
		})
	}},
	{Name: "no-room", Live: discovery.Green, force: true, Shows: []rollout.Code{rollout.NoRoom},
		conf: func(s Size) Config {
			c := base(s)
			c.Green, c.GreenCapacity = c.Green*7/10, c.Connections/c.Blue
			return c
		},
		play: func(w *World) {
			w.when(func() bool { return w.reason.Code == rollout.NoRoom }, func() {
				w.after(30*time.Second, func() {
					for range w.conf.Blue - w.conf.Green + 1 {
						w.Add(discovery.Green)
					}
				})
			})
		}},
	{Name: "abort", Live: discovery.Blue, Mean: 1.1, conf: base, play: func(w *World) {
		w.half(func() {
			if err := w.Do(rollout.Abort{Service: "chat"}); err != nil {
				w.promises.fault(w.now, "abort: %v", err)
			}
		})
	}},
}

// sicken kills a third of green, for a minute. Within a step nothing may be
// closed any more, until they are back.
func (w *World) sicken() {
	all := w.colour(discovery.Green)
	for _, in := range all[:len(all)/3] {
		w.Kill(in)
	}
	w.after(every, func() { w.promises.quiet = w.now + time.Minute - every })
	w.after(time.Minute, func() {
		for _, in := range all[:len(all)/3] {
			w.Restart(in)
		}
	})
}
