package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/units"
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
	// Within is how long it may take to the last close; 0 is as planned and a
	// tenth, if nothing happens.
	Within time.Duration
	conf   func(Size) Config
	// play happens after the promotion.
	play func(*World)
	// ends finds what else is wrong in the end.
	ends func(*World) error
	// force promotes although the plan has problems.
	force bool
}

// base is half of the instances each colour, and clients that come back within
// a few seconds.
func base(s Size) Config {
	p := policy.Default()
	p.Funnel = units.Funnel{Close: s.Connections / 100, Every: units.Duration(every)}
	return Config{
		Blue: s.Instances / 2, Green: s.Instances / 2, Connections: s.Connections, Uneven: true, Proxies: 4, Policy: p,
		Back: exponential(time.Second), Detect: time.Second, Latency: 2 * time.Millisecond,
	}
}

// Run plays the scenario.
func (s Scenario) Run(size Size) Report {
	w := New(s.conf(size))
	w.openGate()
	_, w.promises.rooms = w.Fleet.room(discovery.Green, int(w.Policy.Headroom))
	w.Pass(12 * time.Second)
	began := w.now
	plan, err := w.Plan(discovery.Green, policy.Overrides{})
	if err == nil {
		_, err = w.Do(rollout.Promote{Service: "chat", Target: discovery.Green, Force: s.force})
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
	r.Took, r.Planned, r.Ended = w.promises.last-began, plan.Takes.D(), w.now-began
	s.check(w, &r)
	return r
}

// check holds the end of the story against what it should be.
func (s Scenario) check(w *World, r *Report) {
	fault := func(format string, args ...any) { r.Faults = append(r.Faults, fmt.Sprintf(format, args...)) }
	if w.state.Live != s.Live {
		fault("%s is live in the end, want %s", w.state.Live, s.Live)
	}
	if n := w.Fleet.held[side(s.Live.Other())]; n != 0 {
		fault("%s still holds %d", s.Live.Other(), n)
	}
	for _, c := range s.Shows {
		if _, ok := r.Reasons[c]; !ok {
			fault("the reason %s was never given", c)
		}
	}
	if s.Within == 0 && s.play == nil && w.Policy.Window <= 0 && w.Policy.Stagger.Soak == 0 {
		s.Within = r.Planned * 11 / 10
	}
	if s.Within > 0 && r.Took > s.Within {
		fault("it took %v, want at most %v", r.Took, s.Within)
	}
	if s.ends != nil {
		if err := s.ends(w); err != nil {
			fault("%v", err)
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

// alive lists the instances of a colour that exist.
func (w *World) alive(c discovery.Colour) []*Instance {
	return slices.DeleteFunc(w.Fleet.Colour(c), func(in *Instance) bool { return in.dead || in.gone })
}
