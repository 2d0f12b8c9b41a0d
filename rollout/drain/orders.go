package drain

import (
	"context"
	"fmt"
	"math/rand/v2"
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
	switch {
	case !g.ordered && o.Epoch <= g.epoch:
		return Status{}, &stale{fmt.Sprintf("epoch %d was released; an order needs a newer epoch than %d", g.epoch, o.Epoch)}
	case o.Epoch < g.epoch, o.Epoch == g.epoch && o.Step < g.step:
		return Status{}, &stale{fmt.Sprintf("epoch %d step %d is older than the last order, epoch %d step %d; send a newer one", o.Epoch, o.Step, g.epoch, g.step)}
	case g.ordered && o.Epoch == g.epoch && o.Step == g.step:
		return g.status(), nil
	}
	g.rollout, g.epoch, g.step, g.ordered = o.Rollout, o.Epoch, o.Step, true
	g.ceiling = nil
	now := time.Now()
	var s schedule
	if o.Ceiling != nil {
		ceiling := *o.Ceiling
		g.ceiling = &ceiling
		s = evenly(len(g.held)-ceiling, now.Add(ms(o.StartMS)), ms(o.OverMS))
	}
	g.arrange(o.Pick)
	g.run(s, now)
	g.log.Info("drain order taken", "rollout", o.Rollout, "epoch", o.Epoch, "step", o.Step, "active", len(g.held), "closes", s.left, "order", g.pick)
	return g.status(), nil
}

// release serves again, and is the last word of its epoch.
func (g *Gate) release(r Release) (Status, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.Epoch < g.epoch {
		return Status{}, &stale{fmt.Sprintf("epoch %d is older than the last one, %d; send a newer one", r.Epoch, g.epoch)}
	}
	if g.ordered {
		g.log.Info("released from draining", "rollout", r.Rollout, "epoch", r.Epoch, "active", len(g.held))
	}
	g.arrange(Random)
	changed := g.ordered
	g.rollout, g.epoch, g.step, g.ordered, g.ceiling = r.Rollout, r.Epoch, 0, false, nil
	switch {
	case g.ending && changed:
		g.ownPace()
	case !g.ending:
		g.run(schedule{}, time.Time{})
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
		if !g.ordered {
			g.ownPace()
		}
		g.log.Info("shutting down", "active", len(g.held), "ordered", g.ordered)
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
	g.run(evenly(n, now.Add(rand.N(distance)), distance*time.Duration(n)), now)
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
