package sim

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// asking is an exact world that asks 10 every 3 s and gives 9 s of notice.
func asking(blue, green, connections int, asks Asks, more func(*policy.Policy)) *World {
	terms := policy.Default()
	terms.Funnel = units.Funnel{Close: 10, Every: units.Duration(3 * time.Second)}
	terms.Notice = units.Duration(9 * time.Second)
	if more != nil {
		more(&terms)
	}
	w := New(Config{
		Blue: blue, Green: green, Connections: connections, Proxies: 1, Exact: true, Policy: terms, Latency: time.Millisecond,
		Back: func(*rand.Rand) time.Duration { return 200 * time.Millisecond }, Asks: asks,
	})
	w.Pass(3 * time.Second)
	return w
}

func mustEnd(t *testing.T, w *World, within time.Duration) {
	t.Helper()
	if !w.Run(within, w.Steady) || len(w.Faults()) > 0 {
		t.Errorf("after %v: %s; %v", within, w.Reason().Text, w.Faults())
	}
	for _, in := range w.Fleet.Colour(discovery.Blue) {
		if in.Holds() != 0 {
			t.Errorf("%s still holds %d", in.Name(), in.Holds())
		}
	}
}

// sum adds up what instances of blue count.
func sum(w *World, of func(*Instance) uint64) (n uint64) {
	for _, in := range w.Fleet.Colour(discovery.Blue) {
		n += of(in)
	}
	return n
}

func left(in *Instance) uint64 { return in.notices.left }
func over(in *Instance) uint64 { return in.notices.over }
func gone(in *Instance) uint64 { return in.evicted }

// Everybody who is asked comes over: nobody is closed, and the asks have the pace of the
// cap.
func TestEverybodyComesOver(t *testing.T) {
	w := asking(3, 3, 60, Asks{Can: 3}, nil)
	promote(t, w)
	mustEnd(t, w, 5*time.Minute)
	if sum(w, left) != 60 || sum(w, over) != 0 || sum(w, gone) != 60 || w.Peak(3*time.Second) > 11 {
		t.Errorf("%d left, %d overstayed, %d evicted, %d asks in 3 s", sum(w, left), sum(w, over), sum(w, gone), w.Peak(3*time.Second))
	}
}

// Half never come over: they are closed at the end of their notice, and no faster than
// the cap. Where the window is full of them the notices still end.
func TestSomeOverstay(t *testing.T) {
	for name, more := range map[string]func(*policy.Policy){
		"auto":       nil,
		"window 20":  func(p *policy.Policy) { p.Window = 20 },
		"double 15":  func(p *policy.Policy) { p.Double = 15 },
		"one by one": func(p *policy.Policy) { p.Stagger.Instances = units.Portion{Number: 1} },
	} {
		t.Run(name, func(t *testing.T) {
			w := asking(3, 3, 90, Asks{Can: 3, Stay: 0.5}, more)
			promote(t, w)
			most := 0
			w.Run(10*time.Minute, func() bool {
				n := 0
				for _, in := range w.Fleet.Colour(discovery.Blue) {
					n += len(in.notices.open)
				}
				most = max(most, n)
				return w.Steady()
			})
			mustEnd(t, w, time.Second)
			if sum(w, left)+sum(w, over) != 90 || sum(w, over) < 20 || name == "double 15" && most > 15 {
				t.Errorf("%d left and %d overstayed, at most %d at once", sum(w, left), sum(w, over), most)
			}
		})
	}
}

// A pause that is longer than the notice closes nobody; what follows is as far apart as
// the asks were. rolloutd may restart in it. The window is full of those who were asked
// when it goes on.
func TestPausedInMidNotice(t *testing.T) {
	w := asking(2, 2, 40, Asks{Can: 2, Stay: 1}, func(p *policy.Policy) { p.Window = 10 })
	promote(t, w)
	if !w.Run(time.Minute, func() bool { return sum(w, gone) >= 10 }) {
		t.Fatal(w.Reason().Text)
	}
	if _, err := w.Do(rollout.Pause{Service: "chat"}); err != nil {
		t.Fatal(err)
	}
	w.Pass(100 * time.Millisecond) // the order is on its way
	before := sum(w, over)
	w.Pass(10 * time.Second)
	w.Restart()
	w.Pass(10 * time.Second)
	if n := sum(w, over); n != before {
		t.Errorf("%d were closed in a pause", n-before)
	}
	if _, err := w.Do(rollout.Resume{Service: "chat"}); err != nil {
		t.Fatal(err)
	}
	w.Pass(15 * time.Second)
	if n := sum(w, over); n < 10 {
		t.Errorf("%d were closed after the pause, want the 10 that had been asked: %s", n, w.Reason().Text)
	}
	mustEnd(t, w, 5*time.Minute)
	if sum(w, over) != 40 || sum(w, gone) != 40 {
		t.Errorf("%d overstayed, %d evicted", sum(w, over), sum(w, gone))
	}
}

// An abort takes the asks back.
func TestAbortedInMidNotice(t *testing.T) {
	w := asking(2, 2, 40, Asks{Can: 2, Stay: 1}, nil)
	promote(t, w)
	if !w.Run(time.Minute, func() bool { return sum(w, gone) >= 15 }) {
		t.Fatal(w.Reason().Text)
	}
	before := sum(w, over)
	if _, err := w.Do(rollout.Abort{Service: "chat"}); err != nil {
		t.Fatal(err)
	}
	if !w.Run(5*time.Minute, w.Steady) || len(w.Faults()) > 0 || w.state.Live != discovery.Blue {
		t.Errorf("%s; %v", w.Reason().Text, w.Faults())
	}
	if n := sum(w, over); n > before+1 {
		t.Errorf("%d were closed after the abort", n-before)
	}
}

// The target refuses everybody for a while: nobody who was asked is cut meanwhile.
func TestTheTargetFallsIllInMidNotice(t *testing.T) {
	w := asking(2, 2, 40, Asks{Can: 2, Stay: 1}, nil)
	promote(t, w)
	if !w.Run(time.Minute, func() bool { return sum(w, gone) >= 15 }) {
		t.Fatal(w.Reason().Text)
	}
	for _, in := range w.Fleet.Colour(discovery.Green) {
		in.SetHealth(discovery.Critical)
	}
	w.Pass(2 * time.Second)
	before := sum(w, over)
	w.Pass(time.Minute)
	if n := sum(w, over); n != before {
		t.Errorf("%d were closed while no target was healthy: %s", n-before, w.Reason().Text)
	}
	for _, in := range w.Fleet.Colour(discovery.Green) {
		in.SetHealth(discovery.Passing)
	}
	mustEnd(t, w, 5*time.Minute)
}

// While a gate is closed, or the registry is not read, nobody who was asked is cut.
func TestHeldInMidNotice(t *testing.T) {
	for name, tc := range map[string]struct{ falls, rises func(*World) }{
		"gate": {
			func(w *World) { w.Outside.Gate("errors", observed.Reading{Text: "gate errors is closed"}) },
			func(w *World) { w.Outside.Gate("errors", observed.Reading{Open: true}) },
		},
		"registry": {
			func(w *World) { w.Fleet.Discover("consul gives no answer", "") },
			func(w *World) { w.Fleet.Discover("", "") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := asking(2, 2, 40, Asks{Can: 2, Stay: 1}, func(p *policy.Policy) {
				p.Gates = []policy.Gate{{Name: "errors", URL: "http://127.0.0.1:1/ok"}}
			})
			tc.rises(w)
			w.Outside.Gate("errors", observed.Reading{Open: true})
			promote(t, w)
			if !w.Run(time.Minute, func() bool { return sum(w, over) >= 3 }) {
				t.Fatal(w.Reason().Text)
			}
			tc.falls(w)
			w.Pass(4 * time.Second) // to the end of the step
			before := sum(w, over)
			w.Pass(time.Minute)
			if n := sum(w, over); n != before {
				t.Errorf("%d were closed meanwhile: %s", n-before, w.Reason().Text)
			}
			tc.rises(w)
			mustEnd(t, w, 5*time.Minute)
		})
	}
}

// A fleet of which only some instances can ask: nobody is told what he does not
// understand, and all get empty. One of them is started anew in a release that cannot.
func TestAMixedFleet(t *testing.T) {
	w := asking(4, 2, 80, Asks{Can: 2, Stay: 0.3}, nil)
	promote(t, w)
	if !w.Run(time.Minute, func() bool { return sum(w, gone) >= 30 }) {
		t.Fatal(w.Reason().Text)
	}
	first := w.Fleet.Colour(discovery.Blue)[0]
	if len(first.notices.open) == 0 {
		t.Fatal("nobody is asked")
	}
	first.Start()
	first.nth = 99
	mustEnd(t, w, 10*time.Minute)
	for i, in := range w.Fleet.Colour(discovery.Blue) {
		if asked := in.notices.left+in.notices.over > 0; asked != (i == 1) {
			t.Errorf("%s has asked: %t", in.Name(), asked)
		}
	}
}
