package drain

import "time"

// AdmitLate is AdmitHooks for what was let in before it was known to be a connection
// that lasts, such as a response that does not end: it is held whatever the gate
// does by now, and while it drains it is let go behind those whose turn is set.
func (g *Gate) AdmitLate(h Hooks) *Conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.add(h.source(), h.asOwner())
	g.settle(time.Now())
	return c
}
