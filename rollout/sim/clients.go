package sim

import (
	"math"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
)

// retry is how long a client waits that was refused.
const retry = time.Second

// buckets is how many ticks ahead a client may be on its way.
const buckets = 1 << 16

// clients counts who is where.
type clients struct {
	held [2]int // connections by colour
	// out is how many were evicted, or lost with their instance, and are on
	// their way back.
	out   int
	never [times]int // gave up
	// coming is who arrives in which tick, by how often the funnel closed them; in an
	// exact world each is an event.
	coming  [][times]int32
	organic []int32 // new clients that were refused before
	owed    float64 // organic clients that are due
	came    int     // new clients that are in
	refused int
	most    int // how often one client was closed
	turn    int // round robin
}

// leave has n clients be on their way back, from at.
func (w *World) leave(at time.Duration, times, n int) {
	for range n {
		if w.conf.Never > 0 && w.rng.Float64() < w.conf.Never {
			w.clients.never[times]++
			continue
		}
		w.clients.out++
		w.comes(at+w.conf.Back(w.rng), times)
	}
}

// comes has a client that was closed so many times arrive at that time.
func (w *World) comes(at time.Duration, times int) {
	if at = max(at, w.now); w.conf.Exact {
		w.at(at, func() { w.returns(times) })
		return
	}
	w.clients.coming[bucket(at)][times]++
}

// bucket is the tick after at.
func bucket(at time.Duration) int { return int(at/tick+1) % buckets }

// returns is such a client arriving.
func (w *World) returns(times int) {
	in := w.connect()
	if in == nil {
		w.comes(w.now+w.again(), times)
		return
	}
	in.held[0]--
	in.held[times]++
	in.returned++
	w.clients.out--
}

// Arrive has n new clients come to a colour, past the proxies.
func (w *World) Arrive(c discovery.Colour, n int) {
	for range n {
		if w.through(nil, side(c)) == nil {
			w.after(w.again(), w.arrives)
			continue
		}
		w.clients.came++
	}
}

// Visit has n new clients come through the proxies.
func (w *World) Visit(n int) {
	for range n {
		w.arrives()
	}
}

// arrives is a new client coming to an exact world.
func (w *World) arrives() {
	if w.connect() == nil {
		w.after(w.again(), w.arrives)
		return
	}
	w.clients.came++
}

// arrivals lets in who comes in this tick.
func (w *World) arrivals() {
	c := &w.clients
	now := int(w.now/tick) % buckets
	due := c.coming[now]
	c.coming[now] = [times]int32{}
	for k, n := range due {
		for range n {
			w.returns(k)
		}
	}
	c.owed += w.organic() * tick.Seconds()
	n := int(c.owed) + int(c.organic[now])
	c.owed -= float64(int(c.owed))
	c.organic[now] = 0
	for range n {
		if w.connect() != nil {
			c.came++
		} else {
			c.organic[bucket(w.now+w.again())]++
		}
	}
}

// organic is the rate of new clients now, per second.
func (w *World) organic() float64 {
	if w.conf.Drift == 0 {
		return w.conf.Organic
	}
	return w.conf.Organic * (1 + 0.2*math.Sin(2*math.Pi*w.now.Seconds()/w.conf.Drift.Seconds()))
}

// again is how long a refused client waits, in a large world ± a quarter.
func (w *World) again() time.Duration {
	if w.conf.Exact {
		return retry
	}
	return retry*3/4 + time.Duration(w.rng.Int64N(int64(retry/2)))
}

// connect brings one client to an instance through some proxy, or nowhere: it is
// refused.
func (w *World) connect() *Instance {
	r := w.route()
	c := 0
	switch {
	case r.weights[0] == 0:
		c = 1
	case r.weights[1] > 0 && w.rng.IntN(r.weights[0]+r.weights[1]) >= r.weights[0]:
		c = 1
	}
	return w.through(r, c)
}

// disconnects is how often clients were closed by the funnel in all, and how many
// clients there are.
func (w *World) disconnects() (closed, all int) {
	add := func(k, n int) { closed, all = closed+k*n, all+n }
	for _, in := range w.instances {
		for k, n := range in.held {
			add(k, n)
		}
	}
	for _, b := range w.clients.coming {
		for k, n := range b {
			add(k, int(n))
		}
	}
	for k, n := range w.clients.never {
		add(k, n)
	}
	return closed, all
}

// room is what the open instances of a colour may hold in all; known is false if
// one of them declares no capacity.
func (w *World) room(c discovery.Colour) (total int, known bool) {
	headroom := int(w.Policy.Headroom)
	for _, in := range w.colours[side(c)] {
		if in.dead || in.gone || !in.Health.Serves() {
			continue
		}
		if in.Capacity == 0 {
			return 0, false
		}
		total += in.Capacity * headroom / 10_000
	}
	return total, total > 0
}
