package sim

import (
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// Tells is what an application says of clients that return.
type Tells int

const (
	// Tickets: who was let go shows a ticket.
	Tickets Tells = iota
	// Returns: it knows who was there before.
	Returns
	// Nothing: it cannot tell them from new ones.
	Nothing
	// Nobody: it never says that a client returns, and reports 0.
	Nobody
)

// say adds that to a status: so many clients returned, of whom so many were let go.
func (t Tells) say(s *contract.Status, returned, ticketed uint64) {
	switch t {
	case Tickets:
		s.Returned, s.Ticketed = new(returned), new(ticketed)
	case Returns:
		s.Returned = new(returned)
	case Nobody:
		s.Returned = new(uint64)
	}
}

// Tell has the application say other things of returning clients from now on.
func (f *Fleet) Tell(t Tells) { f.conf.Tells = t }

// Flap has so many clients a second come, say truly that they were there before, and go
// again at once: nobody let them go. 0 is the end of it.
func (c *Crowd) Flap(perSecond int) {
	idle := c.flaps == 0
	if c.flaps = perSecond; idle {
		c.flap()
	}
}

func (c *Crowd) flap() {
	if c.flaps == 0 {
		return
	}
	if in := c.edge.connect(); in != nil {
		in.flapped++
		c.came++
		in.held[0]--
		in.total--
		in.fleet.held[in.side]--
		c.lose(0, 1)
	}
	c.after(time.Second/time.Duration(c.flaps), c.flap)
}
