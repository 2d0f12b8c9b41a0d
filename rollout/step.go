package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/drain"
)

const (
	// settle is waited after the last proxy's acknowledgement: handshakes that
	// were under way may still be answered by the old side.
	settle = 500 * time.Millisecond
	// proxyPatience is how long a proxy that vanished is waited for before it is
	// named and left behind; draining instances refuse by themselves.
	proxyPatience = 30 * time.Second
	// instancePatience is how long an instance that does not answer is waited
	// for before the others go on without it.
	instancePatience = 5 * time.Second
	// recheck is how often a waiting rollout looks again if nothing happens.
	recheck = time.Second
)

// Step decides what happens next to one service. It is pure: it reads no clock
// and does no I/O, and the same state, seen and now give the same decision.
//
// It makes at most one transition. The caller stores Next, lets it take effect,
// looks again and calls Step again until nothing changes.
func Step(s State, seen Seen, now time.Time) Decision {
	d := &decider{s: s, seen: seen, now: now}
	d.absorb()
	why := d.advance()
	return Decision{Next: d.s, Changed: d.touched, Reason: why, Ask: d.ask, AskGates: d.askGates, Wake: d.wake}
}

// decider is one run of Step.
type decider struct {
	s       State
	seen    Seen
	now     time.Time
	touched bool
	ask     []discovery.InstanceID
	// askGates: Decision.AskGates.
	askGates bool
	// Found once, for large fleets: the members' ids in order, nil when some came
	// or went, and where in discovery an instance is.
	sorted []discovery.InstanceID
	where  map[discovery.InstanceID]int
	found  found
	wake   time.Time
}

// found is what was computed from the state, for large fleets; it holds until the
// state is touched.
type found struct {
	open  map[discovery.Colour][]discovery.InstanceID
	moved *Moved
	room  *int
	known bool // of room
}

// touch makes the state ours to change, at once after it: the one that was given
// stays as it is.
func (d *decider) touch() {
	d.found = found{}
	if !d.touched {
		d.s, d.touched = d.s.Clone(), true
	}
}

func (d *decider) put(key discovery.InstanceID, m Member) {
	d.touch()
	if _, known := d.s.Members[key]; !known {
		d.sorted = nil
	}
	d.s.Members[key] = m
}

func (d *decider) drop(key discovery.InstanceID) {
	d.touch()
	d.sorted = nil
	delete(d.s.Members, key)
}

// enter begins a phase.
func (d *decider) enter(p Phase, event string) {
	d.touch()
	r := d.s.Rollout
	r.Phase, r.Since, r.Settled = p, d.now, time.Time{}
	r.note(d.now, event)
	d.wake = d.now
}

// settled marks that what the phase waits for first is complete.
func (d *decider) settled() {
	d.touch()
	d.s.Rollout.Settled = d.now
}

// eventsKept is how many events a rollout remembers: the first half, and the
// newest of the others.
const eventsKept = 200

func (r *Rollout) note(at time.Time, text string) {
	r.Events = append(r.Events, Event{At: at, Text: text})
	if len(r.Events) > eventsKept {
		r.Events = slices.Delete(r.Events, eventsKept/2, eventsKept/2+1)
		r.Omitted++
	}
}

// wait gives the reason and looks again later.
func (d *decider) wait(why Reason) Reason {
	d.wakeBy(d.now.Add(recheck))
	return why
}

func (d *decider) wakeBy(t time.Time) {
	if d.wake.IsZero() || t.Before(d.wake) {
		d.wake = t
	}
}

func (d *decider) advance() Reason {
	r := d.s.Rollout
	switch {
	case d.s.Retired && len(d.s.Members) == 0:
		return reason(IsRetired, "%s left the configuration and is empty", d.s.Service)
	case d.s.Retired:
		return reason(IsRetired, "%s left the configuration; %s not proven empty yet", d.s.Service, counted(len(d.s.Members), "instance is", "instances are"))
	case r == nil:
		return d.steady()
	case r.Paused:
		return reason(Paused, "paused; resume goes on, abort goes back")
	}
	switch r.Phase {
	case Opening:
		return d.opening()
	case Shifting:
		return d.shifting()
	case Confirming:
		return d.confirming()
	case Draining:
		return d.draining()
	default:
		return d.soaking()
	}
}

func (d *decider) steady() Reason {
	if len(d.s.Members) > 0 && len(d.open(d.s.Live)) == 0 {
		return d.wait(reason(NoHealthyLive, "%s has no healthy instance, new connections get 503; start some, or promote %s", d.s.Live, d.s.Live.Other()))
	}
	return reason(IsSteady, "all new connections go to %s", d.s.Live)
}

func (s Sighting) refusing() bool { return !s.At.IsZero() && s.Status.State != drain.Serving }

// opening waits until the side that shall get new connections takes them.
func (d *decider) opening() Reason {
	r := d.s.Rollout
	closed := ""
	for _, key := range d.news() {
		m, sight := d.s.Members[key], d.seen.Instances[key]
		if !d.serves(key, m) || m.Drain == "" {
			continue
		}
		fresh := !sight.At.Before(r.Since)
		patient := d.now.Sub(r.Since) < instancePatience || sight.Err == ""
		if patient && (!fresh || sight.refusing()) {
			closed = cmp.Or(closed, string(key))
			if !fresh {
				d.ask = append(d.ask, key)
			}
		}
	}
	switch {
	case closed != "":
		return d.wait(reason(TargetClosed, "waiting: %s instance %s has not said yet that it takes new connections", r.To, closed))
	case len(d.open(r.To)) == 0:
		return d.wait(reason(TargetSick, "waiting: %s has no healthy instance that takes new connections; start some, or abort", r.To))
	}
	if why, ok := d.confirmed(); !ok {
		return why
	}
	if r.Policy.Canary > 0 && !r.Aborting {
		d.enter(Shifting, fmt.Sprintf("canary: %s of new connections to %s for %s", r.Policy.Canary, r.To, r.Policy.Soak))
		d.s.Rollout.Weight = r.Policy.Canary
		return reason(IsShifting, "%s of new connections go to %s", r.Policy.Canary, r.To)
	}
	return d.confirm()
}

func (d *decider) shifting() Reason {
	r := d.s.Rollout
	if why, ok := d.targetWell(); !ok {
		return why
	}
	if why, ok := d.confirmed(); !ok {
		return why
	}
	if r.Settled.IsZero() {
		d.settled()
	}
	if why, ok := d.soakingGates(); !ok {
		return why
	}
	r = d.s.Rollout
	if end := r.Settled.Add(r.Policy.Soak.D()); d.now.Before(end) {
		d.wakeBy(end)
		return reason(IsShifting, "canary: %s of new connections go to %s until %s", r.Policy.Canary, r.To, clock(end))
	}
	return d.confirm()
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// clock prints a time of day in UTC.
func clock(t time.Time) string { return t.UTC().Format("15:04:05 MST") }

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// names lists the first three.
func names(all []string) string {
	if len(all) <= 3 {
		return strings.Join(all, ", ")
	}
	return strings.Join(all[:3], ", ") + fmt.Sprintf(" and %d more", len(all)-3)
}
