package sim

import (
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/observed"
)

// sicken kills a third of green, for a minute. Within a step nothing may be
// closed any more, until they are back.
func (w *World) sicken() {
	all := w.alive(discovery.Green)
	all = all[:len(all)/3]
	for _, in := range all {
		in.Crash()
	}
	w.standstill(time.Minute)
	w.after(time.Minute, func() {
		for _, in := range all {
			in.Start()
		}
	})
}

// crash kills a tenth of blue.
func (w *World) crash() {
	all := w.alive(discovery.Blue)
	for _, in := range all[:len(all)/10] {
		in.Crash()
	}
}

// trouble lasts a minute: after three steps the pace has to be a quarter.
func (w *World) trouble() {
	w.promises.calm = calm{from: w.now + 3*every, until: w.now + time.Minute, most: w.promises.cap/4 + 1}
}

// supersede is a third release: new blue instances, to which everybody goes.
func (w *World) supersede() {
	for range w.conf.Blue {
		w.Fleet.Add(discovery.Blue)
	}
	w.after(10*time.Second, func() { w.command(rollout.Promote{Service: "chat", Target: discovery.Blue}) })
}

// grow starts so many more green instances.
func (w *World) grow(n int) {
	for range n {
		w.Fleet.Add(discovery.Green)
	}
}

// replace is how an operator works in place: an old instance that was emptied is
// stopped, and a new one is started in its place.
func (w *World) replace() {
	for _, in := range w.alive(discovery.Blue) {
		if in.ordered && in.total == 0 {
			in.dead = true
			in.Deregister()
			w.after(5*time.Second, func() { w.grow(1) })
		}
	}
}

func (w *World) closeGate(d time.Duration) {
	w.Outside.Gate("errors", observed.Reading{Text: "0.02 is not below 0.01"})
	w.standstill(min(d, 30*time.Second))
	w.after(d, w.openGate)
}

func (w *World) openGate() { w.Outside.Gate("errors", observed.Reading{Open: true, Text: "0"}) }

func (w *World) command(c rollout.Command) {
	if _, err := w.Do(c); err != nil {
		w.promises.fault(w.now, "%T: %v", c, err)
	}
}

// standstill allows no close in the next d, but for the rest of the running step.
func (w *World) standstill(d time.Duration) {
	w.after(every+100*time.Millisecond, func() { w.promises.quiet = w.now + d - every - 100*time.Millisecond })
}
