package drain

import (
	"fmt"
	"iter"
	"time"
)

// level is one named order of the control plane, or what is left of it once it was
// released: its epoch, by which a late word is known. It bounds only the connections
// that it covers. All fields belong to Gate.mu.
type level struct {
	gate    *Gate
	name    string
	rollout string
	// While ordered, (epoch, step) is that of the standing order; otherwise epoch is
	// that of the last release.
	epoch, step uint64
	ordered     bool
	ceiling     *int // of the standing order

	from      from          // whose connections it covers
	held      int           // how many of them are held
	asked     int           // … and were asked to come over
	lingering int           // … were told to go and have not ended
	notice    time.Duration // from an ask to its close; 0: none is asked
	notices   notices
	queue     queue
	funnel    *funnel
	distance  time.Duration // between two closes of the standing order
}

// take checks whether an order is newer than the last word. Repeated: it is that word.
func (l *level) take(o Order) (repeated bool, err error) {
	switch {
	case !l.ordered && o.Epoch <= l.epoch:
		return false, &stale{fmt.Sprintf("epoch %d was released; an order needs a newer epoch than %d", l.epoch, o.Epoch)}
	case o.Epoch < l.epoch, o.Epoch == l.epoch && o.Step < l.step:
		return false, &stale{fmt.Sprintf("epoch %d step %d is older than the last order, epoch %d step %d; send a newer one", o.Epoch, o.Step, l.epoch, l.step)}
	}
	return l.ordered && o.Epoch == l.epoch && o.Step == l.step, nil
}

// said is what a status says of it.
func (l *level) said() Level {
	s := Level{State: Serving, Active: l.held, Asked: l.asked, Requests: l.gate.requests(l.from), Lingering: l.lingering, Rollout: l.rollout, Epoch: l.epoch, Step: l.step, From: l.from.names}
	if l.ordered {
		s.State = Draining
		if s.Active+s.Requests+s.Lingering == 0 {
			s.State = Drained
		}
		s.Ceiling = clone(l.ceiling)
	}
	return s
}

// saidLevels is what a status says of those that were ever named; nil when none was.
func (g *Gate) saidLevels() map[string]Level {
	var said map[string]Level
	for _, l := range g.levels {
		if l.epoch == 0 && !l.ordered {
			continue
		}
		if said == nil {
			said = map[string]Level{}
		}
		said[l.name] = l.said()
	}
	return said
}

func count(is bool) int {
	if is {
		return 1
	}
	return 0
}

func clone(n *int) *int {
	if n == nil {
		return nil
	}
	m := *n
	return &m
}

// standing is the level of that name. One that is new takes the place of the one that
// was released longest ago when MaxLevels are remembered; nil when all of them stand.
func (g *Gate) standing(name string) *level {
	for _, l := range g.levels {
		if l.name == name {
			return l
		}
	}
	l := &level{gate: g, name: name, held: len(g.held), asked: g.asked, lingering: g.lingering}
	if len(g.levels) < MaxLevels {
		g.levels = append(g.levels, l)
		return l
	}
	for i, old := range g.levels[1:] {
		if !old.ordered {
			g.levels = append(append(g.levels[:i+1], g.levels[i+2:]...), l)
			return l
		}
	}
	return nil
}

// refuses reports whether a standing order covers who comes from there.
func (g *Gate) refuses(at origin) bool {
	for _, l := range g.levels {
		if l.ordered && l.from.covers(at) {
			return true
		}
	}
	return g.ending
}

// covering are the levels that cover the connection, standing or not, and the own pace.
func (g *Gate) covering(c *Conn) iter.Seq[*level] {
	return func(yield func(*level) bool) {
		for _, l := range g.levels {
			if (l.from.everybody() || l.from.covers(g.origins.of(c))) && !yield(l) {
				return
			}
		}
		if g.own != nil {
			yield(g.own)
		}
	}
}

// ordered reports whether a standing order covers everybody.
func (g *Gate) ordered() bool {
	for _, l := range g.levels {
		if l.ordered && l.from.everybody() {
			return true
		}
	}
	return false
}

// cover has the level cover others from now on, or pick others first.
func (l *level) cover(f from, p Pick) {
	g := l.gate
	if !l.from.same(f) {
		l.from, l.held, l.asked, l.lingering, l.queue = f, 0, 0, 0, queue{}
		for _, c := range g.held {
			if f.everybody() || f.covers(g.origins.of(c)) {
				l.held++
				l.asked += count(c.asked)
			}
		}
		l.keep()
		for at, n := range g.origins.lingering {
			if f.covers(g.origins.nth(at)) {
				l.lingering += n
			}
		}
	}
	if p == "" {
		p = Random
	}
	if l.queue.pick != p {
		l.queue = queue{pick: p}
	}
}

// next is the connection that the level covers and that goes next; nil if there is none.
func (l *level) next() *Conn {
	if !l.queue.made {
		l.queue.make(l.gate, l.from)
	}
	return l.queue.next()
}
