package drain

import (
	"fmt"
	"slices"
	"time"
)

// stale is an order or a release that came after a newer word: HTTP 409.
type stale struct{ text string }

func (s *stale) Error() string { return s.text }

// order carries out an order that passed Check. A ceiling above what is held
// closes nothing: the control plane derives each ceiling from the count it saw,
// so after a pause it may be above the one before.
func (g *Gate) order(o Order) (Status, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.standing(o.levelName())
	if l == nil {
		return Status{}, &stale{fmt.Sprintf("%d levels stand already; release one before %q", MaxLevels, o.Level)}
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
func (g *Gate) release(r Release) (Status, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.standing(r.levelName())
	if l == nil {
		return Status{}, &stale{fmt.Sprintf("%d levels stand already, and %q is none of them", MaxLevels, r.Level)}
	}
	if r.Epoch < l.epoch {
		return Status{}, &stale{fmt.Sprintf("epoch %d is older than the last one, %d; send a newer one", r.Epoch, l.epoch)}
	}
	if l.ordered {
		g.log.Info("released from draining", "level", l.name, "rollout", r.Rollout, "epoch", r.Epoch, "active", l.held)
	}
	l.void()
	l.rollout, l.epoch, l.step, l.ordered, l.ceiling = r.Rollout, r.Epoch, 0, false, nil
	l.cover(from{}, Random)
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
