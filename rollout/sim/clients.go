package sim

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
)

// retry is how long a client waits that was refused.
const retry = time.Second

// buckets is how many ticks ahead a client may be on its way.
const buckets = 1 << 16

// Crowd counts the clients that no instance holds.
type Crowd struct {
	*ground
	edge *Edge

	// out is how many were evicted, or lost with their instance, and are on
	// their way back.
	out   int
	never [times]int // gave up
	// coming is who arrives in which tick, by how often the funnel closed them; in an
	// exact world each is an event.
	coming [][times]int32
	first  []int32 // new clients that were refused before
	owed   float64 // organic clients that are due
	came   int     // new clients that are in
	flaps  int     // clients that come again and again, per second
	most   int     // how often one client was closed
}

// leave has n clients be on their way back, from at.
func (c *Crowd) leave(at time.Duration, times, n int) {
	for range n {
		c.most = max(c.most, times)
		if c.conf.Never > 0 && c.rng.Float64() < c.conf.Never {
			c.never[times]++
			continue
		}
		c.out++
		c.comes(at+c.conf.Back(c.rng), times)
	}
}

// Back has clients that leave from now on take so long to come back.
func (c *Crowd) Back(draw func(*rand.Rand) time.Duration) { c.conf.Back = draw }

// lose has n clients be gone for good that were closed so many times.
func (c *Crowd) lose(times, n int) { c.never[times] += n }

// come has n new clients be in.
func (c *Crowd) come(n int) { c.came += n }

// comes has a client that was closed so many times arrive at that time.
func (c *Crowd) comes(at time.Duration, times int) {
	if at = max(at, c.now); c.conf.Exact {
		c.at(at, func() { c.returns(times) })
		return
	}
	c.coming[bucket(at)][times]++
}

// bucket is the tick after at.
func bucket(at time.Duration) int { return int(at/tick+1) % buckets }

// returns is such a client arriving.
func (c *Crowd) returns(times int) {
	in := c.edge.connect()
	if in == nil {
		c.comes(c.now+c.again(), times)
		return
	}
	in.held[0]--
	in.held[times]++
	in.returned++
	c.out--
}

// Arrive has n new clients come to a colour, past the proxies.
func (c *Crowd) Arrive(to discovery.Colour, n int) {
	for range n {
		if c.edge.through(nil, side(to), direct) == nil {
			c.after(c.again(), c.arrives)
			continue
		}
		c.came++
	}
}

// Visit has n new clients come through the proxies.
func (c *Crowd) Visit(n int) {
	for range n {
		c.arrives()
	}
}

// arrives is a new client coming to an exact world.
func (c *Crowd) arrives() {
	if c.edge.connect() == nil {
		c.after(c.again(), c.arrives)
		return
	}
	c.came++
}

// arrivals lets in who comes in this tick.
func (c *Crowd) arrivals() {
	now := int(c.now/tick) % buckets
	due := c.coming[now]
	c.coming[now] = [times]int32{}
	for k, n := range due {
		for range n {
			c.returns(k)
		}
	}
	c.owed += c.rate() * tick.Seconds()
	n := int(c.owed) + int(c.first[now])
	c.owed -= float64(int(c.owed))
	c.first[now] = 0
	for range n {
		if c.edge.connect() != nil {
			c.came++
		} else {
			c.first[bucket(c.now+c.again())]++
		}
	}
}

// rate is that of new clients now, per second.
func (c *Crowd) rate() float64 {
	if c.conf.Drift == 0 {
		return c.conf.Organic
	}
	return c.conf.Organic * (1 + 0.2*math.Sin(2*math.Pi*c.now.Seconds()/c.conf.Drift.Seconds()))
}

// again is how long a refused client waits, in a large world ± a quarter.
func (c *Crowd) again() time.Duration {
	if c.conf.Exact {
		return retry
	}
	return retry*3/4 + time.Duration(c.rng.Int64N(int64(retry/2)))
}
