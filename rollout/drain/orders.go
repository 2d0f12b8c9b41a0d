package drain

import (
	"context"
	"fmt"
	"math/rand/v2"
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
		g.void(l)
	}
	l.rollout, l.epoch, l.step, l.ordered = o.Rollout, o.Epoch, o.Step, true
	l.notice = ms(o.NoticeMS)
	l.ceiling = clone(o.Ceiling)
	g.cover(l, newFrom(o.From), o.Pick)
	now := time.Now()
	g.ripen(now)
	var s schedule
	if o.Ceiling == nil {
		g.holdNotices(l, now)
	} else {
		g.resumeNotices(l, now)
		s = evenly(l.untold()-*o.Ceiling, now.Add(ms(o.StartMS)), ms(o.OverMS))
		l.distance = ms(o.OverMS) / time.Duration(max(s.left, 1))
	}
	g.run(l, s, now)
	g.wake(now)
	if g.own != nil && g.ordered() {
		g.run(g.own, schedule{}, now)
		g.void(g.own)
		g.own = nil
	}
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
	g.void(l)
	l.rollout, l.epoch, l.step, l.ordered, l.ceiling = r.Rollout, r.Epoch, 0, false, nil
	g.cover(l, from{}, Random)
	l.queue = queue{}
	g.run(l, schedule{}, time.Time{})
	if i := slices.Index(g.levels, l); i > 0 { // the one that was released last is forgotten last
		g.levels = append(slices.Delete(g.levels, i, i+1), l)
	}
	if g.ending && g.own == nil && !g.ordered() {
		g.ownPace()
	}
	return g.status(), nil
}

func ms(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// Shutdown lets all connections go, refuses new ones and returns nil when none
// is left; call it on SIGTERM, before the server is stopped. While an order of
// the control plane stands, its pace holds (and a pause is a pause); without one
// the connections go at random and evenly at Options.Close per Options.Every, from a random
// phase, so that instances that are stopped together do not close in unison. If
// ctx ends first the error says how many are left and wraps context.Cause(ctx).
// The endpoint should keep being served meanwhile. A Gate never serves again
// after Shutdown.
func (g *Gate) Shutdown(ctx context.Context) error {
	g.mu.Lock()
	if !g.ending {
		g.ending = true
		g.deadline, _ = ctx.Deadline()
		if !g.ordered() {
			g.ownPace()
		}
		g.log.Info("shutting down", "active", len(g.held), "ordered", g.ordered())
	}
	g.checkEmpty()
	g.mu.Unlock()
	select {
	case <-g.empty:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s were left when the grace period ended: %w", g.Status().left(), context.Cause(ctx))
	}
}

func (g *Gate) ownPace() {
	now := time.Now()
	n, distance := len(g.held), max(g.opt.Every/time.Duration(g.opt.Close), 1)
	g.own = &level{held: n, asked: g.asked, notice: g.opt.Notice}
	if !g.deadline.IsZero() {
		g.own.notice = min(g.own.notice, max(0, g.deadline.Sub(now)/2))
	}
	g.run(g.own, evenly(n, now.Add(rand.N(distance)), distance*time.Duration(n)), now)
}

// left is what is still held, in words.
func (s Status) left() string {
	text := fmt.Sprintf("%d connections", s.Active)
	if s.Requests > 0 {
		text += fmt.Sprintf(", %d requests", s.Requests)
	}
	if s.Lingering > 0 {
		text += fmt.Sprintf(", %d that linger", s.Lingering)
	}
	return text
}
