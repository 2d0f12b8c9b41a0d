package drain

import (
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
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
func (l *level) take(o contract.Order) (repeated bool, err error) {
	switch {
	case !l.ordered && o.Epoch <= l.epoch:
		return false, &stale{fmt.Sprintf("epoch %d was released; an order needs a newer epoch than %d", l.epoch, o.Epoch)}
	case o.Epoch < l.epoch, o.Epoch == l.epoch && o.Step < l.step:
		return false, &stale{fmt.Sprintf("epoch %d step %d is older than the last order, epoch %d step %d; send a newer one", o.Epoch, o.Step, l.epoch, l.step)}
	}
	return l.ordered && o.Epoch == l.epoch && o.Step == l.step, nil
}

// said is what a status says of it.
func (l *level) said() contract.Level {
	s := contract.Level{State: contract.Serving, Active: l.held, Asked: l.asked, Requests: l.gate.requests(l.from), Lingering: l.lingering, Rollout: l.rollout, Epoch: l.epoch, Step: l.step, From: l.from.names}
	if l.ordered {
		s.State = contract.Draining
		if s.Active+s.Requests+s.Lingering == 0 {
			s.State = contract.Drained
		}
		s.Ceiling = clone(l.ceiling)
	}
	return s
}

// saidLevels is what a status says of those that were ever named; nil when none was.
func (g *Gate) saidLevels() map[string]contract.Level {
	var said map[string]contract.Level
	for _, l := range g.levels {
		if l.epoch == 0 && !l.ordered {
			continue
		}
		if said == nil {
			said = map[string]contract.Level{}
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
// was released longest ago when contract.MaxLevels are remembered; nil when all of them stand.
func (g *Gate) standing(name string) *level {
	for _, l := range g.levels {
		if l.name == name {
			return l
		}
	}
	l := &level{gate: g, name: name, held: len(g.held), asked: g.asked, lingering: g.lingering}
	if len(g.levels) < contract.MaxLevels {
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
func (l *level) cover(f from, p contract.Pick) {
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
		p = contract.Random
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

// stale is an order or a release that came after a newer word: HTTP 409.
type stale struct{ text string }

func (s *stale) Error() string { return s.text }

// order carries out an order that passed Check. A ceiling above what is held
// closes nothing: the control plane derives each ceiling from the count it saw,
// so after a pause it may be above the one before.
func (g *Gate) order(o contract.Order) (contract.Status, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.standing(o.LevelName())
	if l == nil {
		return contract.Status{}, &stale{fmt.Sprintf("%d levels stand already; release one before %q", contract.MaxLevels, o.Level)}
	}
	if repeated, err := l.take(o); repeated || err != nil {
		return g.status(), err
	}
	if l.rollout != o.Rollout {
		l.void()
	}
	l.rollout, l.epoch, l.step, l.ordered = o.Rollout, o.Epoch, o.Step, true
	l.notice = ms(o.NoticeMS)
	l.ceiling = clone(o.Ceiling)
	l.cover(newFrom(o.From), o.Pick)
	now := time.Now()
	g.ripen(now)
	var s schedule
	if o.Ceiling == nil {
		l.holdNotices(now)
	} else {
		l.resumeNotices(now)
		s = evenly(l.untold()-*o.Ceiling, now.Add(ms(o.StartMS)), ms(o.OverMS))
		l.distance = ms(o.OverMS) / time.Duration(max(s.left, 1))
	}
	l.run(s, now)
	g.wake(now)
	if g.own != nil && g.ordered() && !g.grace.overdue {
		g.own.run(schedule{}, now)
		g.own.void()
		g.own = nil
	}
	g.grace.mind(now)
	g.log.Info("drain order taken", "level", l.name, "rollout", o.Rollout, "epoch", o.Epoch, "step", o.Step, "active", l.held, "closes", s.left, "order", l.queue.pick)
	return g.status(), nil
}

// release ends one level's order, and is the last word of its epoch.
func (g *Gate) release(r contract.Release) (contract.Status, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.standing(r.LevelName())
	if l == nil {
		return contract.Status{}, &stale{fmt.Sprintf("%d levels stand already, and %q is none of them", contract.MaxLevels, r.Level)}
	}
	if r.Epoch < l.epoch {
		return contract.Status{}, &stale{fmt.Sprintf("epoch %d is older than the last one, %d; send a newer one", r.Epoch, l.epoch)}
	}
	if l.ordered {
		g.log.Info("released from draining", "level", l.name, "rollout", r.Rollout, "epoch", r.Epoch, "active", l.held)
	}
	l.void()
	l.rollout, l.epoch, l.step, l.ordered, l.ceiling = r.Rollout, r.Epoch, 0, false, nil
	l.cover(from{}, contract.Random)
	l.queue = queue{}
	l.run(schedule{}, time.Time{})
	if i := slices.Index(g.levels, l); i > 0 { // the one that was released last is forgotten last
		g.levels = append(slices.Delete(g.levels, i, i+1), l)
	}
	if g.ending && g.own == nil && !g.ordered() {
		g.grace.ownPace(time.Now())
		g.grace.mind(time.Now())
	}
	return g.status(), nil
}

func ms(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
