package sim

import (
	"math/rand/v2"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// Asks is how clients take it to be asked to come over. The zero value: their instances
// cannot ask.
type Asks struct {
	// Can: the instances can ask, in the order in which they were started all up to this
	// many of each colour; 0 is none.
	Can int
	// Moves is how long a client takes to come over; nil is 200 ms. Stay is the share of
	// them that never does.
	Moves func(*rand.Rand) time.Duration
	Stay  float64
}

// asked is one client that was asked.
type asked struct {
	of   *Instance
	was  int           // how often it had been let go before
	end  time.Duration // of its notice
	over bool          // it has gone, or the ask was taken back
}

// now is how often it was let go, with this time.
func (a *asked) now() int { return min(a.was+1, times-1) }

// notices are an instance's asked clients.
type notices struct {
	open       []*asked
	stand      bool          // their time stands still
	since      time.Duration // … since then
	left, over uint64
}

// askable reports whether the instance can ask.
func (in *Instance) askable() bool { return in.nth < in.fleet.conf.Asks.Can }

// say adds the asks to a status.
func (n *notices) say(in *Instance, s *contract.Status) {
	if in.askable() {
		s.Can, s.Asked, s.Left, s.Overstayed = []contract.Ability{contract.CanAsk}, len(n.open), n.left, n.over
	}
}

// ask has one client be asked, who is on his way from then on.
func (f *Fleet) ask(in *Instance, at time.Duration) {
	k := in.draw()
	a := &asked{of: in, was: k, end: at + in.notice}
	in.held[k]-- // those that are not asked
	in.notices.open = append(in.notices.open, a)
	in.evicted++
	f.crowd.out++
	f.crowd.most = max(f.crowd.most, a.now())
	f.promises.closed(in, at)
	f.at(a.end, func() { f.overstay(a) })
	if asks := f.conf.Asks; f.rng.Float64() >= asks.Stay {
		takes := 200 * time.Millisecond
		if asks.Moves != nil {
			takes = asks.Moves(f.rng)
		}
		f.at(at+takes, func() { f.crowd.moves(a) })
	}
}

// moves is an asked client connecting to the other side, and only then ending the old
// connection. One that is refused tries again.
func (c *Crowd) moves(a *asked) {
	if a.over {
		return
	}
	to := c.edge.connect()
	if to == nil {
		c.after(retry, func() { c.moves(a) })
		return
	}
	to.held[0]--
	to.held[a.now()]++
	to.returned++
	c.out--
	a.of.notices.left++
	a.gone()
}

// overstay closes a client at the end of its notice.
func (f *Fleet) overstay(a *asked) {
	in := a.of
	switch {
	case a.over || in.notices.stand:
		return
	case a.end > f.now: // its time stood still
		f.at(a.end, func() { f.overstay(a) })
		return
	}
	in.notices.over++
	a.gone()
	f.crowd.out--
	f.crowd.leave(f.now, a.now(), 1)
	f.promises.overstayed(in, f.now)
}

// gone has the connection be gone.
func (a *asked) gone() {
	in := a.of
	a.over = true
	for i, other := range in.notices.open {
		if other == a {
			in.notices.open = append(in.notices.open[:i], in.notices.open[i+1:]...)
			break
		}
	}
	in.total--
	in.peers.release()
	in.fleet.held[in.side]--
}

// void takes the asks back: those clients stay, and have not been let go.
func (n *notices) void(in *Instance) {
	for _, a := range n.open {
		a.over = true
		in.held[a.was]++
		in.fleet.crowd.out--
	}
	n.open = nil
}

// holds has the notices stand still, or go on.
func (in *Instance) holds(still bool) {
	n := &in.notices
	switch {
	case still && !n.stand:
		n.stand, n.since = true, in.fleet.now
	case !still && n.stand:
		n.stand = false
		for _, a := range n.open {
			a.end += in.fleet.now - n.since
			in.fleet.at(a.end, func() { in.fleet.overstay(a) })
		}
	}
}
