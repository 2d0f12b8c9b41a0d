// Package rollout decides what should happen: which colour gets new
// connections, and how many of the old ones may go now. All of it is pure: the loop
// with effects is package control.
package rollout

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// Step decides what happens next to one service. It is pure: it reads no clock
// and does no I/O, and the same state, seen and now give the same decision.
//
// It makes at most one transition, and checks what comes of it. The caller stores
// Next, lets it take effect, looks again and calls Step again until nothing changes.
func Step(s state.State, seen observed.Seen, now time.Time) Decision {
	t := newTurn(s, seen, now)
	if unread := t.unread(); unread != nil {
		return Decision{Next: s, Reason: unread.Reason, Wake: now.Add(recheck)}
	}
	absorb(t)
	renew(t)
	why := advance(t)
	if t.changed {
		if err := t.state.Check(); err != nil {
			return Decision{Next: s, Reason: reason(StoreFailing, "waiting: %v", unchecked(err)), Wake: now.Add(recheck)}
		}
	}
	return Decision{Next: t.state, Changed: t.changed, Reason: why, Ask: t.ask, AskGates: t.askGates, Wake: t.wake}
}

// recheck is how often a waiting rollout looks again if nothing happens.
const recheck = time.Second

// turn is one transition of a state: it changes a copy, and Step checks what comes of
// it. Whatever changes a state goes through its methods; the
// state that it was given stays as it is.
type turn struct {
	*situation
	changed bool
	owned   bool // the map of members is the turn's own
	// What the decision asks for: see Decision.
	ask      []discovery.InstanceID
	askGates policy.Moment
	wake     time.Time
}

func newTurn(s state.State, seen observed.Seen, now time.Time) *turn {
	if s.Rollout != nil {
		r := *s.Rollout // the turn's own: what is read of it is never out of date
		r.Events, r.LeftBehind = slices.Clip(r.Events), slices.Clip(r.LeftBehind)
		s.Rollout = &r
	}
	return &turn{situation: newSituation(s, seen, now)}
}

// write marks the state as changed and returns it, to be changed at once.
func (t *turn) write() *state.State {
	t.changed = true
	t.memo.moved, t.memo.room = nil, nil
	return &t.state
}

// rollout is the running rollout, to be changed at once.
func (t *turn) rollout() *state.Rollout { return t.write().Rollout }

// put makes m the member of this key.
func (t *turn) put(key discovery.InstanceID, m state.Member) {
	if was := t.state.Members[key]; was.Identity != m.Identity || was.Standing != m.Standing || !was.Departed.Equal(m.Departed) {
		t.memo.roster = nil
	}
	t.ownMembers()[key] = m
}

func (t *turn) drop(key discovery.InstanceID) {
	t.memo.roster = nil
	delete(t.ownMembers(), key)
}

func (t *turn) ownMembers() map[discovery.InstanceID]state.Member {
	s := t.write()
	if !t.owned {
		t.owned = true
		if s.Members = maps.Clone(s.Members); s.Members == nil {
			s.Members = map[discovery.InstanceID]state.Member{}
		}
	}
	return s.Members
}

// enter begins a phase.
func (t *turn) enter(p state.Phase, event string) {
	r := t.rollout()
	r.Phase, r.Since, r.Settled = p, t.now, time.Time{}
	r.Note(t.now, event)
	t.wake = t.now
}

// note remembers an event of the rollout.
func (t *turn) note(event string) { t.rollout().Note(t.now, event) }

// wait gives the reason and looks again later.
func (t *turn) wait(b *blocker) Reason {
	t.wakeBy(t.now.Add(recheck))
	if !b.Until.IsZero() {
		t.wakeBy(b.Until)
	}
	return b.Reason
}

func (t *turn) wakeBy(at time.Time) {
	if t.wake.IsZero() || at.Before(t.wake) {
		t.wake = at
	}
}

// restep replaces the running step by one that holds: closes stop at once, not
// at the end of the step. The next one comes a full step later, so that the cap
// holds across the change.
func (t *turn) restep() {
	if t.state.Rollout.Phase != state.Draining {
		return
	}
	r := t.rollout()
	r.Step++
	r.StepAt, r.Cap, r.Given, r.Spent = t.now.Add(r.Policy.Funnel.Every.D()), 0, state.Allowance{}, nil
	t.hold()
}

// hold takes the ceilings away: every member keeps what it has.
func (t *turn) hold() {
	for _, f := range t.members().all {
		m := t.state.Members[f.key]
		was := m
		m.Ceiling = nil
		if f.answers {
			m.Quota = state.Quota{} // else it may have closed its share and not said so
		}
		if m != was {
			t.put(f.key, m)
		}
	}
}

// count starts counting a member's evictions and returns for this rollout, from its
// last answer on.
func (t *turn) count(key discovery.InstanceID) {
	m, status := t.state.Members[key], t.seen.Instances[key].Status
	m.Counted, m.Totals = true, observed.TotalsOf(status)
	m.Counts = noted(t.situation, key, m)
	t.put(key, m)
}

// fold adds what a member's process evicted and saw return to the rollout's sums, and
// what the running step gave it to what is spent, and stops counting it.
func (t *turn) fold(key discovery.InstanceID) {
	m := t.state.Members[key]
	if t.state.Rollout == nil || !m.Counted && m.Lost == 0 {
		return
	}
	done := deeds(t.situation, key, m)
	r := t.rollout()
	r.Toll.Totals = r.Toll.Totals.Plus(done.Totals)
	r.Lost += done.Lost
	if m.Ceiling != nil && m.Share > 0 {
		r.Spent = append(slices.Clone(r.Spent), state.Spent{Share: m.Share, Start: m.Start})
	}
	m.Counts = state.Counts{Admissions: m.Admissions}
	t.put(key, m)
}

// forgetProxies has no switch be confirmed by the proxies any more.
func (t *turn) forgetProxies(nodes ...string) {
	s := t.write()
	s.Proxies = slices.DeleteFunc(slices.Clone(s.Proxies), func(n string) bool { return slices.Contains(nodes, n) })
	s.Machines = maps.Clone(s.Machines)
	maps.DeleteFunc(s.Machines, func(n string, _ netip.Addr) bool { return slices.Contains(nodes, n) })
}

// Decision is what Step chose. Next must be stored before it has any effect.
type Decision struct {
	Next state.State
	// Changed: Next differs from the state that was given.
	Changed bool
	Reason  Reason
	// Ask names members whose drain endpoint must be asked now: the next step
	// waits for fresh counts.
	Ask []discovery.InstanceID
	// AskGates: the gates of this moment must be asked now.
	AskGates policy.Moment
	// Wake is when to decide again if nothing else happens; zero: no need.
	Wake time.Time
}
