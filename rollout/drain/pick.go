package drain

import (
	"math/rand/v2"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// Active says that something was read or written just now, for Idlest. Handler
// and Listener say it by themselves. It takes no lock and may be called for each
// message.
func (c *Conn) Active() {
	if now := c.gate.clock(); c.active.Load() != now {
		c.active.Store(now)
	}
}

// clock is in seconds since the gate was made.
func (g *Gate) clock() uint32 { return uint32(time.Since(g.born) / time.Second) }

// queue is the connections that one level covers, in the order in which they go:
// Oldest and Idlest are a binary heap by before. It is made when the first one goes.
// Those that have ended by themselves, or were asked by another level, are passed over when their turn comes. The zero
// value is Random.
type queue struct {
	pick contract.Pick
	made bool
	list []queued
}

type queued struct {
	*Conn
	seen uint32 // active, when it was last looked at
}

// make takes in all that are held and covered.
func (q *queue) make(g *Gate, f from) {
	q.made = true
	for _, c := range g.held {
		if !c.asked && (f.everybody() || f.covers(g.origins.of(c))) {
			q.list = append(q.list, queued{c, c.active.Load()})
		}
	}
	if q.pick == contract.Oldest || q.pick == contract.Idlest {
		for i := len(q.list)/2 - 1; i >= 0; i-- {
			q.sink(i)
		}
	}
}

// add takes in one more.
func (q *queue) add(c *Conn) {
	if !q.made {
		return
	}
	q.list = append(q.list, queued{c, c.active.Load()})
	if q.pick == contract.Oldest || q.pick == contract.Idlest {
		q.rise(len(q.list) - 1)
	}
}

// maxLooks bounds how long one pick may take.
const maxLooks = 1000

// next takes out the connection that goes next; nil if there is none. With Idlest, one
// that was active since it was last looked at sinks to where it belongs; activity is
// noted to the second, so that each sinks at most once in one. Of more than maxLooks
// that were active since, the first that was not looked at again goes.
func (q *queue) next() *Conn {
	for looks := 0; len(q.list) > 0; {
		first := 0
		if q.pick != contract.Oldest && q.pick != contract.Idlest {
			first = rand.IntN(len(q.list))
		}
		c := q.list[first]
		if now := c.active.Load(); q.pick == contract.Idlest && c.goes() && c.seen != now && looks < maxLooks {
			looks++
			q.list[0].seen = now
			q.sink(0)
			continue
		}
		q.drop(first)
		if c.goes() {
			return c.Conn
		}
	}
	return nil
}

// goes reports whether the connection is held and was not asked to go.
func (c *Conn) goes() bool { return c.at >= 0 && !c.asked }

// drop takes out the one at i: the first, unless they are in no order.
func (q *queue) drop(i int) {
	last := len(q.list) - 1
	q.list[i], q.list[last] = q.list[last], queued{}
	q.list = q.list[:last]
	if q.pick == contract.Oldest || q.pick == contract.Idlest {
		q.sink(i)
	}
}

func (q *queue) before(i, j int) bool {
	a, b := q.list[i], q.list[j]
	if q.pick == contract.Idlest && a.seen != b.seen {
		return a.seen < b.seen
	}
	return a.nth < b.nth
}

// sink and rise put the connection at i where it belongs in the heap.
func (q *queue) sink(i int) {
	for {
		child := 2*i + 1
		if child >= len(q.list) {
			return
		}
		if right := child + 1; right < len(q.list) && q.before(right, child) {
			child = right
		}
		if !q.before(child, i) {
			return
		}
		q.list[i], q.list[child] = q.list[child], q.list[i]
		i = child
	}
}

func (q *queue) rise(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !q.before(i, parent) {
			return
		}
		q.list[i], q.list[parent] = q.list[parent], q.list[i]
		i = parent
	}
}
