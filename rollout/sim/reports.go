package sim

import (
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
)

// reporting is how often the proxies report their loads.
const reporting = time.Second

// report has the proxies say what they see of each instance.
func (w *World) report() {
	now := w.clock()
	if w.seen.Loads == nil {
		w.seen.Loads = map[rollout.Place]rollout.Load{}
	}
	for _, in := range w.instances {
		if in.gone {
			continue
		}
		at := rollout.Place{Colour: in.Colour, Addr: in.Addr}
		last := w.seen.Loads[at]
		w.seen.Loads[at] = rollout.Load{
			Held: in.total, Admissions: rollout.Admissions{Accepted: in.entered, Refused: in.refused}, At: now,
			PerSecond: float64(in.entered-last.Accepted) / reporting.Seconds(),
		}
	}
	w.seen.Witnesses = map[discovery.Colour]rollout.Witness{
		discovery.Blue:  {Active: w.clients.held[0], At: now},
		discovery.Green: {Active: w.clients.held[1], At: now, ConnectP99: w.slow},
	}
	w.counted = true
}
