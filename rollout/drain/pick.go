package drain

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Pick is which connections an instance lets go first. Empty is Random.
type Pick string

const (
	// Random: each is as likely to go as any other.
	Random Pick = "random"
	// Oldest: those that were admitted first go first.
	Oldest Pick = "oldest"
	// Idlest: those that read or wrote nothing for the longest time go first, to
	// the second, and the oldest of equals. One that never says when it is active
	// counts from its admission, so among those it is Oldest.
	Idlest Pick = "idlest"
)

// Check reports a pick that is none.
func (p Pick) Check() error {
	switch p {
	case "", Random, Oldest, Idlest:
		return nil
	}
	return fmt.Errorf("order is %q; it must be random, oldest or idlest, or left out for random", string(p))
}

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

// arrange has the next connection to go found quickly. Oldest and Idlest keep
// held as a binary heap by Conn.before; nothing is admitted while they do.
func (g *Gate) arrange(p Pick) {
	if p == "" {
		p = Random
	}
	if p == Random || p == Oldest && g.pick == Oldest {
		g.pick = p
		return
	}
	g.pick = p
	for _, c := range g.held {
		c.seen = c.active.Load()
	}
	for i := len(g.held)/2 - 1; i >= 0; i-- {
		g.sink(i)
	}
}

// maxLooks bounds how long one pick may take.
const maxLooks = 1000

// next is the connection that goes next. With Idlest, one that was active since
// it was last looked at sinks to where it belongs; activity is noted to the
// second, so that each sinks at most once in one. Of more than maxLooks that were
// active since, the first that was not looked at again goes.
func (g *Gate) next() *Conn {
	if g.pick == Random {
		return g.held[rand.IntN(len(g.held))]
	}
	if g.pick == Idlest {
		for range maxLooks {
			c := g.held[0]
			now := c.active.Load()
			if c.seen == now {
				break
			}
			c.seen = now
			g.sink(0)
		}
	}
	return g.held[0]
}

func (g *Gate) before(i, j int) bool {
	a, b := g.held[i], g.held[j]
	if g.pick == Idlest && a.seen != b.seen {
		return a.seen < b.seen
	}
	return a.nth < b.nth
}

func (g *Gate) swap(i, j int) {
	g.held[i], g.held[j] = g.held[j], g.held[i]
	g.held[i].at, g.held[j].at = int32(i), int32(j)
}

// sink and rise put the connection at i where it belongs in the heap.
func (g *Gate) sink(i int) {
	for {
		child := 2*i + 1
		if child >= len(g.held) {
			return
		}
		if right := child + 1; right < len(g.held) && g.before(right, child) {
			child = right
		}
		if !g.before(child, i) {
			return
		}
		g.swap(i, child)
		i = child
	}
}

func (g *Gate) rise(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !g.before(i, parent) {
			return
		}
		g.swap(i, parent)
		i = parent
	}
}
