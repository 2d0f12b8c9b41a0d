package main

import (
	"math"
	"time"

	"github.com/sluice-proxy/sluice/examples/swarm/clients"
)

// point is a value at a time, in seconds since the first client was let go.
type point struct{ x, y float64 }

// connections is how many clients some instances serve over time, as a staircase
// with a step every grid at most.
func (r recording) connections(of func(clients.Hello) bool, from, to float64, grid time.Duration) (line []point) {
	start, n, i := r.start(), 0, 0
	for x := from; x <= to; x += grid.Seconds() {
		before := n
		for ; i < len(r.records) && r.records[i].At.Sub(start).Seconds() <= x; i++ {
			switch rec := r.records[i]; {
			case !of(rec.Hello):
			case rec.Kind == clients.Joined:
				n++
			case rec.Kind == clients.Left, rec.Kind == clients.Ended:
				n--
			}
		}
		if before != n || len(line) == 0 {
			if len(line) > 0 {
				line = append(line, point{x, float64(before)})
			}
			line = append(line, point{x, float64(n)})
		}
	}
	return append(line, point{to, float64(n)})
}

// reconnects is how many clients came back in each second.
func (r recording) reconnects(from, to float64) (bars []point) {
	start := r.start()
	bars = make([]point, int(math.Ceil(to-from)))
	for i := range bars {
		bars[i].x = from + float64(i)
	}
	for _, t := range r.returns() {
		if i := int(math.Floor(t.Sub(start).Seconds() - from)); i >= 0 && i < len(bars) {
			bars[i].y++
		}
	}
	return bars
}

// start is the charts' zero: when the first client was let go, or the command if none was.
func (r recording) start() time.Time {
	if gone := r.letGo(); len(gone) > 0 {
		return gone[0]
	}
	return r.began
}
