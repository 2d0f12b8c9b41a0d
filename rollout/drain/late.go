package drain

import (
	"math/rand/v2"
	"time"
)

// AdmitLate is AdmitHooks for what was let in before it was known to be a connection
// that lasts, such as a response that does not end: it is held whatever the gate
// does by now. While the gate drains it is let go like the others, behind those
// whose turn is set, or at the gate's own pace if there are none.
func (g *Gate) AdmitLate(h Hooks) *Conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.add(h.source(), closeFunc(h.Close))
	if g.ending && g.own == nil && !g.ordered() {
		g.grace.ownPace(time.Now())
		return c
	}
	for l := range g.covering(c) {
		switch over := g.above(l); {
		case l.funnel != nil:
			l.funnel.level++
			l.funnel.left++
		case over > 0:
			distance := max(g.opt.Every/time.Duration(g.opt.Close), 1)
			now := time.Now()
			g.run(l, evenly(over, now.Add(rand.N(distance)), distance*time.Duration(over)), now)
		}
	}
	return c
}

// above is how many more the level covers than it is to get down to.
func (g *Gate) above(l *level) int {
	switch {
	case l == g.own:
		return l.held
	case l.ordered && l.ceiling != nil:
		return l.held - *l.ceiling
	}
	return 0
}
