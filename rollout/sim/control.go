package sim

import (
	"maps"
	"sync"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// loop is the controller, without its goroutines.
type loop struct {
	*ground
	// Policy is what the next promotion starts from.
	Policy policy.Policy
	// Rests is called whenever a look comes to rest; nil is not.
	Rests func()

	fleet    *Fleet
	edge     *Edge
	outside  *Outside
	talks    *talks
	promises *promises

	state  state.State
	seen   observed.Seen // what only the loop itself knows; see adds the rest
	asking bool          // the gates are being asked
	wish   desired.Wish
	reason rollout.Reason
	since  time.Duration // when the reason was first given
	lost   *state.State  // what was stored when it was lost; nil if it never was
}

// Do carries out an operator's command; an error is a *rollout.Refusal.
func (l *loop) Do(c rollout.Command) (rollout.Answer, error) {
	if _, ok := c.(rollout.Promote); ok {
		l.talks.fresh()
	}
	next, answer, err := rollout.Apply(c, l.Policy, l.state, l.see(), l.Now())
	if err != nil {
		return answer, err
	}
	if l.outside.storeDown {
		return rollout.Answer{}, rollout.RefuseUnstored("chat", rollout.Unstored(syscall.ENOSPC))
	}
	l.store(next)
	l.ring()
	return answer, nil
}

// Plan is what a promotion would do now.
func (l *loop) Plan(target discovery.Colour, o policy.Overrides) (rollout.Plan, error) {
	l.talks.fresh()
	return rollout.MakePlan(l.state, l.see(), target, o.Over(l.Policy), l.Now())
}

// Restart is rolloutd dying and starting again: only what is stored survives, and
// the proxies, which connect again at once.
func (l *loop) Restart() { l.RestartAhead(0) }

// RestartAhead is Restart after the clock was set back by so much, or forward, if it is
// below 0: what is stored is of a clock that was ahead.
func (l *loop) RestartAhead(ahead time.Duration) {
	l.state = l.state.Dated(func(at time.Time) time.Time { return at.Add(ahead) }).Resumed(l.Now())
	l.talks.forget()
	l.edge.forget()
	l.asking = false
	l.seen = observed.Seen{Watching: l.Now(), Hooks: map[discovery.InstanceID]observed.HookRun{}}
	l.ring()
}

// Lose is rolloutd dying, and its state with it, before it starts again.
func (l *loop) Lose() {
	if !l.state.Unsettled {
		l.lost = new(l.state)
	}
	l.state, l.edge.kept = state.NewUnsettled("chat", l.conf.Live), true
	l.Restart()
}

// found holds that what is taken for live without a state, and without an operator's
// word, is where new connections went.
func (l *loop) found(live discovery.Colour) {
	r := l.lost.Rollout
	switch {
	case r == nil && live == l.lost.Live, r != nil && r.Phase != state.Draining && r.Phase != state.Soaking, r != nil && live == r.To:
		return
	}
	l.promises.fault(l.now, "the state was lost and %s is live, but new connections went to %s", live, live.Other())
}

// Seen is what is seen now; the caller may change it.
func (l *loop) Seen() observed.Seen {
	s := l.see()
	s.Instances, s.Hooks = maps.Clone(s.Instances), maps.Clone(s.Hooks)
	s.Loads, s.Witnesses = maps.Clone(s.Loads), maps.Clone(s.Witnesses)
	return s
}

// see adds what discovery, the members and the proxies say.
func (l *loop) see() observed.Seen {
	s := l.seen
	if !l.outside.retired {
		s.Fleet = l.fleet.shown
	}
	s.Instances = l.talks.heard
	l.edge.show(&s)
	return s
}

// look decides until nothing changes any more.
func (l *loop) look() {
	l.hush(l.now)
	for range 50 {
		l.promises.looks++
		// Both are pure: the decision is made beside the wish, and once more only when
		// the proxies have been told something.
		seen, version := l.see(), l.edge.routes.version
		var d rollout.Decision
		var beside sync.WaitGroup
		beside.Go(func() { d = rollout.Step(l.state, seen, l.Now()) })
		l.wish = rollout.Wished(l.state, seen, l.Now())
		beside.Wait()
		if l.edge.publish(l.wish); l.edge.routes.version != version {
			d = rollout.Step(l.state, l.see(), l.Now())
		}
		if d.Next.Retired != l.outside.retired {
			d.Next, d.Changed = d.Next.Retire(l.outside.retired), true
		}
		if d.Changed {
			if err := d.Next.Check(); err != nil {
				l.promises.fault(l.now, "a decision no state may have: %v", err)
			}
			if d.Next.Unsettled {
				l.state = d.Next // not stored
				continue
			}
			if !l.outside.storeDown {
				if l.state.Unsettled {
					l.found(d.Next.Live)
				}
				l.because(d.Reason)
				l.store(d.Next)
				continue
			}
			d.Reason = rollout.Reason{Code: rollout.StoreFailing, Text: "waiting: " + rollout.Unstored(syscall.ENOSPC).Error()}
			d.Wake = l.Now().Add(time.Second)
		}
		l.because(d.Reason)
		l.rest(d)
		return
	}
	l.promises.fault(l.now, "Step never comes to rest: %s", l.reason.Text)
	l.due = never
}

// rest lets what was decided show.
func (l *loop) rest(d rollout.Decision) {
	if l.Rests != nil {
		l.Rests()
	}
	if d.AskGates != "" {
		l.askGates(d.AskGates)
	}
	l.callHooks(l.wish.Hooks)
	l.talks.assign(desired.Assignments(l.state, l.wish, l.see()))
	l.talks.ask(d.Ask)
	l.talks.send()
	l.due = never
	if !d.Wake.IsZero() {
		l.due = max(d.Wake.Sub(Epoch), l.now+time.Millisecond)
	}
}

// store keeps the next state. In an exact world it is what is read back.
func (l *loop) store(next state.State) {
	l.state = next
	if !l.conf.Exact {
		return
	}
	data, err := state.Encode(next)
	if err == nil {
		l.state, err = state.Decode(data)
	}
	if err != nil {
		l.promises.fault(l.now, "a state that cannot be read back: %v\n%s", err, data)
	}
}

// because keeps how long each reason was given.
func (l *loop) because(r rollout.Reason) {
	l.promises.reasons[l.reason.Code] += l.now - l.since
	l.reason, l.since = r, l.now
	l.promises.reasons[r.Code] += 0
}

// State is what is stored.
func (l *loop) State() state.State { return l.state }

// Reason is why the last look came to rest.
func (l *loop) Reason() rollout.Reason { return l.reason }

// Wish is what should be by what is stored and seen now.
func (l *loop) Wish() desired.Wish { return rollout.Wished(l.state, l.see(), l.Now()) }

// Steady reports whether no rollout is under way.
func (l *loop) Steady() bool { return l.state.Rollout == nil }
