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
	// coming is who arrives in which tick, by how often the funnel closed them.
	coming  [buckets][times]int32
	organic [buckets]int32 // new clients that were refused before
	owed    float64        // organic clients that are due
	came    int            // organic clients that are in
	refused int
	most    int // how often one client was closed
}

// leave has n clients be on their way back, from at.
func (w *World) leave(at time.Duration, closed, n int) {
	for range n {
		if w.conf.Never > 0 && w.rng.Float64() < w.conf.Never {
			w.clients.never[closed]++
			continue
		}
		w.clients.out++
		w.clients.coming[bucket(max(at+w.conf.Back(w.rng), w.now))][closed]++
	}
}

// bucket is the tick after at.
func bucket(at time.Duration) int { return int(at/tick+1) % buckets }

// arrivals lets in who comes in this tick.
func (w *World) arrivals() {
	c := &w.clients
	now := int(w.now/tick) % buckets
	due := c.coming[now]
	c.coming[now] = [times]int32{}
	for k, n := range due {
		for range n {
			if in := w.connect(); in != nil {
				in.held[k]++
				in.returned++
				c.out--
			} else {
				c.coming[bucket(w.now+w.again())][k]++
			}
		}
	}
	c.owed += w.organic() * tick.Seconds()
	n := int(c.owed) + int(c.organic[now])
	c.owed -= float64(int(c.owed))
	c.organic[now] = 0
	for range n {
		if in := w.connect(); in != nil {
			in.held[0]++
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

// again is how long a refused client waits, ± a quarter.
func (w *World) again() time.Duration {
	return retry*3/4 + time.Duration(w.rng.Int64N(int64(retry/2)))
}

// connect brings one client to an instance through the next proxy, or nowhere:
// it is refused.
func (w *World) connect() *instance {
	p := w.proxies[w.rng.IntN(len(w.proxies))]
	c := 0
	switch {
	case p.weights[0] == 0:
		c = 1
	case p.weights[1] > 0 && w.rng.IntN(p.weights[0]+p.weights[1]) >= p.weights[0]:
		c = 1
	}
	if len(p.open[c]) > 0 {
		p.turn[c]++
		in := p.open[c][p.turn[c]%len(p.open[c])]
		if !in.dead && !in.ordered && (in.limit == 0 || in.total < in.limit) && (w.sulk == 0 || c == 0 || w.rng.Float64() >= w.sulk) {
			in.total++
			in.accepted++
			in.entered++
			w.clients.held[c]++
			return in
		}
		in.refused++
	}
	w.clients.refused++
	return nil
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
	headroom := int(w.conf.Policy.Headroom)
	for _, in := range w.instances {
		if in.Colour != c || in.dead || in.gone || !in.Health.Serves() {
			continue
		}
		if in.Capacity == 0 {
			return 0, false
		}
		total += in.Capacity * headroom / 10_000
	}
	return total, total > 0
}
