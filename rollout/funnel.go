package rollout

import (
	"cmp"
	"fmt"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/spread"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// draining closes the gates of the old side, lets connections end by themselves
// for the grace, then takes one step of the funnel after the other until the old
// side is empty.
func (d *decider) draining() Reason {
	r := d.s.Rollout
	if r.Settled.IsZero() {
		return d.closeGates()
	}
	d.countNew()
	d.observe()
	if d.depends() {
		d.track(false)
	}
	d.spill()
	r = d.s.Rollout
	old := d.oldSide()
	if old.empty() && len(old.waiting) == 0 {
		d.enter(Soaking, fmt.Sprintf("%s is empty", r.From))
		return reason(IsSoaking, "%s is empty", r.From)
	}
	if end := r.Settled.Add(r.Policy.Grace.D()); d.now.Before(end) {
		d.wakeBy(end)
		return reason(InGrace, "waiting: %s connections may end by themselves until %s", r.From, clock(end))
	}
	if why, ok := d.targetWell(); !ok {
		if why.Code == TargetSick && d.closing() {
			d.touch()
			d.restep(d.now) // what this step has not closed yet would have nowhere to go
		}
		return why
	}
	if why, ok := d.confirmed(); !ok {
		return why
	}
	if old.empty() {
		return d.nextBatch(old)
	}
	r = d.s.Rollout
	if d.now.Before(r.StepAt) {
		if d.closing() && d.overruns() {
			d.touch()
			d.restep(d.now) // the room or window that this step was for went away
		}
		d.askGatesBefore(d.s.Rollout.StepAt)
		d.wakeBy(d.s.Rollout.StepAt)
		return d.letting(IsDraining)
	}
	if len(old.held) == 0 {
		if why, ok := d.callHooks(old); ok {
			return why
		}
		return d.wait(d.stuck(old))
	}
	if why, ok := d.fresh(old); !ok {
		return why
	}
	if why, ok := d.gatesOpen(r.StepAt.Add(-gatesAhead)); !ok {
		return why
	}
	return d.step(d.oldSide())
}

// letting says what the funnel does.
func (d *decider) letting(c Code) Reason {
	r := d.s.Rollout
	n, why := d.paced()
	if r.Given.Close > 0 {
		n, why = r.Given.Close, r.Given.Why
	}
	text := fmt.Sprintf("%s lets at most %s go every %s", r.From, counted(n, "connection", "connections"), r.Policy.Funnel.Every)
	if why != "" {
		text += ": " + why
	}
	return Reason{Code: c, Text: text}
}

// closeGates waits until every draining instance that answers refuses new
// connections, so that what is held can only fall from then on.
func (d *decider) closeGates() Reason {
	r := d.s.Rollout
	total := 0
	for _, key := range d.olds() {
		m, sight := d.s.Members[key], d.seen.Instances[key]
		n, _ := d.holds(key, m)
		total += n
		if m.Drain == "" || d.dead(key, m) || !d.s.drains(m) {
			continue
		}
		patient := d.now.Sub(r.Since) < instancePatience || sight.Err == ""
		if patient && !d.gated(key) {
			return d.wait(reason(GateOpen, "waiting: %s instance %s has not said yet that it refuses new connections", r.From, key))
		}
	}
	d.settled()
	r = d.s.Rollout
	r.Total = total
	r.note(d.now, fmt.Sprintf("%s holds %s; letting %s go", r.From, counted(total, "connection", "connections"), r.Policy.Funnel))
	for _, key := range d.olds() {
		d.countSeen(key)
	}
	d.countNew()
	d.track(true)
	d.wake = d.now
	return d.letting(IsDraining)
}

// countNew counts instances that joined the side that takes over meanwhile.
func (d *decider) countNew() {
	for _, key := range d.news() {
		d.countSeen(key)
	}
}

func (d *decider) countSeen(key discovery.InstanceID) {
	m, sight := d.s.Members[key], d.seen.Instances[key]
	if _, reported := d.load(m); !m.Counted && (!sight.At.IsZero() || m.Drain == "" && reported) {
		d.count(key, sight.Status)
		m = d.s.Members[key]
		m.Accepted, m.Refused = d.totals(key, m)
		d.put(key, m)
	}
}

// closing reports whether the running step may still close connections.
func (d *decider) closing() bool {
	for _, m := range d.s.Members {
		if m.Ceiling != nil {
			return true
		}
	}
	return false
}

// gated reports whether the instance has said in this epoch that it refuses new
// connections. What it holds can then only fall.
func (d *decider) gated(key discovery.InstanceID) bool {
	sight := d.seen.Instances[key]
	return sight.refusing() && sight.Status.Rollout == d.s.Rollout.ID && sight.Status.Epoch == d.s.Epoch
}

// oldSide is the members whose turn it is to drain, sorted by what can be done
// about them; proven empty ones are in none.
type oldSide struct {
	held        []discovery.InstanceID // answers, refuses, holds connections
	counts      []int                  // of held
	unreachable []discovery.InstanceID // has a drain endpoint that does not answer
	noEndpoint  []discovery.InstanceID // has none; the operator or the hook ends it
	late        []discovery.InstanceID // answers, but does not refuse yet
	waiting     []discovery.InstanceID // its turn has not come
}

// empty reports whether nobody whose turn it is holds anything.
func (o oldSide) empty() bool {
	return len(o.held)+len(o.unreachable)+len(o.noEndpoint)+len(o.late) == 0
}

// stuck says what is waited for when no instance can be told to let go.
func (d *decider) stuck(o oldSide) Reason {
	switch {
	case len(o.late) > 0:
		return reason(GateOpen, "waiting: %s instance %s has not said yet that it refuses new connections", d.s.Rollout.From, o.late[0])
	case len(o.unreachable) > 0:
		why := cmp.Or(d.seen.Instances[o.unreachable[0]].Err, "it has not answered yet")
		return reason(Unreachable, "waiting: %s cannot be told to let go (%s); bring it back, or stop the instance and deregister it", keys(o.unreachable), why)
	default:
		return reason(NoEndpoint, "waiting: %s has no drain endpoint; stop the instance and deregister it when its connections may end", keys(o.noEndpoint))
	}
}

func (d *decider) oldSide() oldSide {
	var o oldSide
	stagger := d.s.Rollout.Policy.Stagger
	for _, key := range d.olds() {
		m, sight := d.s.Members[key], d.seen.Instances[key]
		n, known := d.holds(key, m)
		switch {
		case d.dead(key, m):
		case !stagger.Instances.IsZero() && m.Turn == 0:
			if n > 0 || !known || stagger.InPlace && m.Departed.IsZero() {
				o.waiting = append(o.waiting, key)
			}
		case m.Drain == "":
			if !d.ended(key, m) {
				o.noEndpoint = append(o.noEndpoint, key)
			}
		case n == 0 && d.gated(key): // by its own word, so it need not answer for ever
		case sight.Err != "" || sight.At.IsZero():
			o.unreachable = append(o.unreachable, key)
		case !d.gated(key):
			o.late = append(o.late, key)
		case n > 0:
			o.held = append(o.held, key)
			o.counts = append(o.counts, n)
		}
	}
	return o
}

// ended reports whether a member without a drain endpoint has nothing left to
// let go: the proxies' witness says so, or the operator or the hook has ended it.
func (d *decider) ended(key discovery.InstanceID, m Member) bool {
	switch {
	case d.witnessed(m.Colour):
		return true
	case m.Departed.IsZero():
		return d.hooked(key, m) && !d.serves(key, m)
	}
	load, _ := d.load(m)
	w, ok := d.seen.Witnesses[m.Colour]
	return load.Held == 0 || !ok || len(w.Missing) > 0
}

// fresh asks the instances that take part for their counts of now: a step is
// computed from what is held when it begins, so that what ended by itself
// counts, and what an instance was late with is not added to the next step. Where
// it depends on who is back, those that take over are asked, too, if they answer.
func (d *decider) fresh(o oldSide) (Reason, bool) {
	r := d.s.Rollout
	asked := latest(latest(r.StepAt, r.Settled), r.Turned)
	for _, key := range o.held {
		if d.seen.Instances[key].At.Before(asked) {
			d.ask = append(d.ask, key)
		}
	}
	if d.depends() {
		for _, key := range d.news() {
			if sight := d.seen.Instances[key]; d.answers(key) && sight.At.Before(asked) {
				d.ask = append(d.ask, key)
			}
		}
	}
	if len(d.ask) == 0 {
		return Reason{}, true
	}
	d.wakeBy(d.now.Add(recheck))
	return d.letting(FreshCounts), false
}

// step orders the next closes: as many as are allowed, shared out in proportion
// to what each instance holds. Whoever takes no part is told to hold, so that an
// order it never got cannot come late.
func (d *decider) step(o oldSide) Reason {
	d.track(true)
	pace := d.judge()
	given, why, ok := d.allowance(pace)
	if !ok {
		return why
	}
	d.adopt(pace)
	r := d.s.Rollout
	limit := max(r.Cap, d.limit())
	every := r.Policy.Funnel.Every.D()
	part := spread.Shares(given.Close, o.counts)
	first := spread.Starts(part, every)
	late := spread.Delay(d.lastSchedule(), spread.Schedule(part, first, every), limit+1, every)
	d.touch()
	r = d.s.Rollout
	r.Step++
	r.OrderedAt, r.StepAt = d.now, d.now.Add(late+every+spread.PauseAfter(every))
	r.Cap, r.Given = d.limit(), given
	d.hold()
	for i, key := range o.held {
		m := d.s.Members[key]
		if !m.Counted {
			d.count(key, d.seen.Instances[key].Status)
			m = d.s.Members[key]
		}
		ceiling := o.counts[i] - part[i]
		m.Ceiling, m.Share, m.Start = &ceiling, part[i], units.Duration(late+first[i])
		d.put(key, m)
	}
	d.askGatesBefore(r.StepAt)
	d.wakeBy(r.StepAt)
	return d.letting(IsDraining)
}

// lastSchedule is when closes of the step that ends now came, as if it had begun
// a step ago: it began earlier, by its own delay and the pause after it.
func (d *decider) lastSchedule() []time.Duration {
	r := d.s.Rollout
	every := r.Policy.Funnel.Every.D()
	earlier := max(0, d.now.Sub(r.OrderedAt)-every)
	var part []int
	var first []time.Duration
	for _, m := range d.s.Members {
		if m.Ceiling != nil && m.Share > 0 {
			part, first = append(part, m.Share), append(first, m.Start.D()-earlier)
		}
	}
	return spread.Schedule(part, first, every)
}

// hold takes the ceilings away: everybody keeps what it has.
func (d *decider) hold() {
	for key, m := range d.s.Members {
		was := m
		m.Ceiling = nil
		if d.answers(key) {
			m.Share, m.Start = 0, 0 // else it may have closed its share and not said so
		}
		if m != was {
			d.put(key, m)
		}
	}
}

func (d *decider) answers(key discovery.InstanceID) bool {
	sight := d.seen.Instances[key]
	return sight.Err == "" && !sight.At.IsZero()
}

func keys(ids []discovery.InstanceID) string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = string(id)
	}
	return names(out)
}
