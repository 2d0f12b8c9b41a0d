package drain

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// grace is how Shutdown keeps to the time that it has. Without an end it has for ever.
// All fields belong to Gate.mu.
type grace struct {
	*Gate
	end time.Time // the deadline of its context
	// by is when everybody must have been told, so that CloseWait is left.
	by time.Time
	// overdue: what the orders would leave is let go by then, whatever they say.
	overdue bool
	timer   *time.Timer
}

// Shutdown lets all connections go, refuses new ones and returns nil when none
// is left; call it on SIGTERM, before the server is stopped. Short requests end by
// themselves. The connections go at random and evenly at Options.Close per Options.Every,
// or as much faster as it takes to tell everybody before ctx's deadline, with CloseWait
// left; from a random phase, so that instances that are stopped together do not close in
// unison. While an order of the control plane stands, its pace holds (and a pause is a
// pause) for as long as the own pace can still be done with the rest in time. What is
// left then, requests too, is told to go.
//
// If ctx ends first the error says how many are left and wraps context.Cause(ctx). Give
// it a little less time than what kills the process: systemd's TimeoutStopSec,
// Kubernetes' terminationGracePeriodSeconds. The endpoint should keep being served
// meanwhile. A Gate never serves again after Shutdown; the first call's deadline counts.
func (g *Gate) Shutdown(ctx context.Context) error {
	g.mu.Lock()
	if !g.ending {
		g.grace.begin(ctx, time.Now())
	}
	g.checkEmpty()
	g.mu.Unlock()
	select {
	case <-g.empty:
		return nil
	case <-ctx.Done():
		held := left(g.Status())
		g.log.Warn("the grace period has ended, what is left is cut off", "left", held)
		return fmt.Errorf("%s were left when the grace period ended: %w", held, context.Cause(ctx))
	}
}

func (g *grace) begin(ctx context.Context, now time.Time) {
	g.ending = true
	g.ripen(now)
	if end, bounded := ctx.Deadline(); bounded {
		g.end = end
		g.by = end.Add(-min(g.opt.CloseWait, max(end.Sub(now), 0)/2))
	}
	g.log.Info("shutting down", "active", len(g.held), "requests", g.short.n, "ordered", g.ordered(), "grace", g.rest(now))
	if !g.ordered() {
		g.ownPace(now)
	}
	g.wake(now)
	g.mind(now)
}

// rest is how much of the grace period is left; 0 is not bounded.
func (g *grace) rest(now time.Time) time.Duration {
	if g.end.IsZero() {
		return 0
	}
	return max(g.end.Sub(now), 1)
}

func (o Options) distance() time.Duration { return max(o.Every/time.Duration(o.Close), 1) }

// ownPace lets go everybody who is held, at the own pace or as fast as the time demands,
// with at most half of it as notice.
func (g *grace) ownPace(now time.Time) {
	n, distance, notice := len(g.held), g.opt.distance(), g.opt.Notice
	if !g.end.IsZero() && n > 0 {
		notice = min(notice, g.rest(now)/2)
		if most := max(g.by.Sub(now)-notice, 0) / time.Duration(n); most < distance {
			distance = most
			g.log.Warn("shutting down faster than the own pace: the grace period is short", "active", n, "over", distance*time.Duration(n), "grace", g.rest(now))
		}
	}
	g.own = &level{gate: g.Gate, held: n, asked: g.asked, notice: notice, distance: distance}
	g.own.run(evenly(n, now.Add(rand.N(max(distance, 1))), distance*time.Duration(n)), now)
}

// latest is when the own pace has to begin with those who are held.
func (g *grace) latest() time.Time {
	return g.by.Add(-g.opt.Notice - g.opt.distance()*time.Duration(len(g.held)))
}

// mind sets the timer for what the grace period demands next; called with mu held when
// what is let go has changed.
func (g *grace) mind(now time.Time) {
	if !g.ending || g.end.IsZero() {
		return
	}
	if g.timer != nil {
		g.timer.Stop()
	}
	next := g.by
	if g.own == nil { // orders stand: until the own pace takes all of the time
		next = g.latest()
	}
	g.timer = time.AfterFunc(next.Sub(now), func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.hurry(time.Now())
	})
}

// hurry takes over from orders that would leave somebody, and tells everybody who is
// still there at last.
func (g *grace) hurry(now time.Time) {
	switch {
	case !now.Before(g.by):
		g.overdue = true
		g.tellAll()
		return
	case g.own == nil && now.Before(g.latest()):
		// Many have gone since the timer was set.
	case g.own == nil:
		g.overdue = true
		g.log.Warn("the orders leave connections at the end of the grace period: the own pace takes over", "active", len(g.held), "grace", g.rest(now))
		g.ownPace(now)
	}
	g.mind(now)
}

// tellAll tells everybody to go now.
func (g *grace) tellAll() {
	for _, line := range []*line{&g.streams, &g.short} {
		for line.first != nil {
			g.last(line.first.conn)
		}
	}
	if n := len(g.held); n > 0 {
		g.log.Warn("the grace period ends: all that is left is told to go", "left", n)
	}
	for len(g.held) > 0 {
		c := g.held[len(g.held)-1]
		if !c.told {
			c.told = true
			g.evicted++
		}
		if c.asked {
			g.unask(c)
			g.overstayed++
		}
		g.letGo(c)
	}
}

func (g *Gate) checkEmpty() {
	if !g.ending || len(g.held)+g.lingering+g.short.n+g.streams.n > 0 {
		return
	}
	select {
	case <-g.empty:
	default:
		close(g.empty)
		if g.grace.timer != nil {
			g.grace.timer.Stop()
		}
	}
}

// left is what is still held, in words.
func left(s contract.Status) string {
	text := fmt.Sprintf("%d connections", s.Active)
	if s.Requests > 0 {
		text += fmt.Sprintf(", %d requests", s.Requests)
	}
	if s.Lingering > 0 {
		text += fmt.Sprintf(", %d that linger", s.Lingering)
	}
	return text
}
