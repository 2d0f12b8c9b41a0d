package rollout

import (
	"cmp"
	"fmt"
	"maps"
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
	return Decision{Next: d.s, Changed: d.touched, Reason: why, Ask: d.ask, Wake: d.wake}
}

// decider is one run of Step.
type decider struct {
	s       State
	seen    Seen
	now     time.Time
	touched bool
	ask     []discovery.InstanceID
	wake    time.Time
	// Found once, for large fleets: the members by colour, nil when some came or
	// went, and where in discovery an instance is.
	sides map[discovery.Colour][]discovery.InstanceID
	where map[discovery.InstanceID]int
}

// touch makes the state ours to change: the one that was given stays as it is.
func (d *decider) touch() {
	if !d.touched {
		d.s, d.touched = d.s.Clone(), true
	}
}

func (d *decider) put(key discovery.InstanceID, m Member) {
	d.touch()
	if was, ok := d.s.Members[key]; !ok || was.Colour != m.Colour {
		d.sides = nil
	}
	d.s.Members[key] = m
}

func (d *decider) drop(key discovery.InstanceID) {
	d.touch()
	d.sides = nil
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

func (r *Rollout) note(at time.Time, text string) {
	r.Events = append(r.Events, Event{At: at, Text: text})
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

// open lists the healthy instances of a colour that do not refuse connections.
func (d *decider) open(c discovery.Colour) []discovery.InstanceID {
	return slices.DeleteFunc(d.side(c), func(key discovery.InstanceID) bool {
		return !d.serves(key, d.s.Members[key]) || d.seen.Instances[key].refusing()
	})
}

func (s Sighting) refusing() bool { return !s.At.IsZero() && s.Status.State != drain.Serving }

// opening waits until the side that shall get new connections takes them.
func (d *decider) opening() Reason {
	r := d.s.Rollout
	closed := ""
	for _, key := range d.side(r.To) {
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
		r = d.s.Rollout
	}
	if end := r.Settled.Add(r.Policy.Soak.D()); d.now.Before(end) {
		d.wakeBy(end)
		return reason(IsShifting, "canary: %s of new connections go to %s until %s", r.Policy.Canary, r.To, clock(end))
	}
	return d.confirm()
}

func (d *decider) confirm() Reason {
	to := d.s.Rollout.To
	d.enter(Confirming, fmt.Sprintf("all new connections to %s", to))
	return reason(Unconfirmed, "waiting: the proxies are told to send new connections to %s", to)
}

// confirming waits until nobody sends new connections to the old side.
func (d *decider) confirming() Reason {
	if why, ok := d.confirmed(); !ok {
		if !d.s.Rollout.Settled.IsZero() {
			d.touch()
			d.s.Rollout.Settled = time.Time{}
		}
		return why
	}
	if d.s.Rollout.Settled.IsZero() {
		d.settled()
	}
	r := d.s.Rollout
	if end := r.Settled.Add(settle); d.now.Before(end) {
		d.wakeBy(end)
		return reason(Settling, "waiting: handshakes that were under way when the last proxy confirmed may still end on %s", r.From)
	}
	d.enter(Draining, fmt.Sprintf("every proxy sends new connections to %s; %s refuses new ones", r.To, r.From))
	return reason(GateOpen, "waiting: %s instances are told to refuse new connections", r.From)
}

// confirmed reports whether every known proxy has acknowledged what is
// published. A proxy that vanished is waited for, then named and left behind.
func (d *decider) confirmed() (Reason, bool) {
	if d.seen.Unpublished != "" {
		return d.wait(reason(Unpublished, "waiting: the proxies were not told: %s", d.seen.Unpublished)), false
	}
	r := d.s.Rollout
	var behind []string
	for _, p := range d.seen.Proxies {
		switch {
		case p.Connected && p.Nack != "":
			return d.wait(reason(Nacked, "waiting: proxy %s refused its configuration (%s); mend the cause, then restart that Envoy", p.Node, p.Nack)), false
		case p.Connected && !p.Confirmed:
			behind = append(behind, p.Node)
		}
	}
	if len(behind) > 0 {
		return d.wait(reason(Unconfirmed, "waiting: %s not acknowledged yet: %s", counted(len(behind), "proxy has", "proxies have"), names(behind))), false
	}
	for _, node := range d.s.Proxies {
		i := slices.IndexFunc(d.seen.Proxies, func(p Proxy) bool { return p.Node == node })
		from := latest(r.Since, d.seen.Watching)
		if i >= 0 {
			if d.seen.Proxies[i].Connected {
				continue
			}
			from = latest(from, d.seen.Proxies[i].Lost)
		}
		if end := from.Add(proxyPatience); d.now.Before(end) {
			d.wakeBy(end)
			return d.wait(reason(Unconfirmed, "waiting: proxy %s is not connected; it is left behind at %s", node, clock(end))), false
		}
		d.touch()
		d.s.Proxies = slices.DeleteFunc(d.s.Proxies, func(n string) bool { return n == node })
		d.s.Rollout.LeftBehind = append(d.s.Rollout.LeftBehind, "proxy "+node)
		d.s.Rollout.note(d.now, "proxy "+node+" is not connected and was left behind")
		d.wake = d.now
		return reason(Unconfirmed, "proxy %s is left behind", node), false
	}
	return Reason{}, true
}

// targetWell reports whether the side that takes over can be sent clients.
func (d *decider) targetWell() (Reason, bool) {
	r := d.s.Rollout
	if d.seen.Fleet.Err != "" {
		return d.wait(reason(StaleDiscovery, "waiting: %s", d.seen.Fleet.Err)), false
	}
	if d.seen.Fleet.Suspect != "" {
		return d.wait(reason(StaleDiscovery, "waiting: %s", d.seen.Fleet.Suspect)), false
	}
	for _, key := range d.side(r.To) {
		m := d.s.Members[key]
		if in, ok := d.instance(key, m); ok && !in.Health.Serves() {
			return d.wait(reason(TargetSick, "waiting: %s instance %s is %s; deregister it to go on without it", r.To, key, in.Health)), false
		}
	}
	if len(d.open(r.To)) == 0 {
		return d.wait(reason(TargetSick, "waiting: %s has no healthy instance that takes new connections; start some, or abort", r.To)), false
	}
	return Reason{}, true
}

func (d *decider) soaking() Reason {
	r := d.s.Rollout
	d.countNew()
	patient := d.now.Sub(latest(r.Since, d.seen.Watching)) < instancePatience
	if key, ok := d.silent(); ok && patient {
		return d.wait(reason(FreshCounts, "%s is empty; waiting: %s has not said yet what it let go and saw return", r.From, key))
	}
	r = d.s.Rollout
	evicted, returned, exact := Moved(d.s, d.seen)
	end := r.Since.Add(r.Policy.ReturnTimeout.D())
	if exact && returned < evicted && d.now.Before(end) {
		d.wakeBy(end)
		return d.wait(reason(IsSoaking, "%s not back yet; soaking until %s", counted(int(evicted-returned), "evicted client is", "evicted clients are"), clock(end)))
	}
	d.finish(evicted, returned, exact)
	return reason(IsSteady, "all new connections go to %s", d.s.Live)
}

// silent names an instance that was counted and has said nothing since this
// process started.
func (d *decider) silent() (discovery.InstanceID, bool) {
	for _, key := range slices.Sorted(maps.Keys(d.s.Members)) {
		if d.s.Members[key].Counted && d.seen.Instances[key].At.IsZero() {
			return key, true
		}
	}
	return "", false
}

// finish ends the rollout and remembers it.
func (d *decider) finish(evicted, returned uint64, exact bool) {
	for key, m := range d.s.Members {
		d.fold(key, m)
	}
	d.touch()
	r := d.s.Rollout
	rec := Record{
		ID: r.ID, From: r.From, To: r.To, Outcome: Done, Forced: r.Forced, Started: r.Started, Ended: d.now,
		Evicted: evicted, LeftBehind: r.LeftBehind, Events: r.Events,
	}
	if exact {
		back := min(returned, evicted)
		never := evicted - back
		rec.Returned, rec.NeverBack = &back, &never
	}
	if r.Aborting {
		rec.Outcome, rec.From, rec.To = Aborted, r.To, r.From
	}
	d.s.Live = r.To
	d.s.Rollout = nil
	d.s.History = append(d.s.History, rec)
	if over := len(d.s.History) - historyKept; over > 0 {
		d.s.History = slices.Delete(d.s.History, 0, over)
	}
	d.wake = d.now
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
