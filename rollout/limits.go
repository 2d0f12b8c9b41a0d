package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// limit is the most connections that the next step may close: the cap, or more
// when the deadline is pressing and the policy hurries.
func (d *decider) limit() int {
	r := d.s.Rollout
	n := r.Policy.Funnel.Close
	if need, pressed := d.pressed(); pressed && r.Policy.Pressure == Hurry {
		n = max(n, min(need, r.Policy.HurryCap))
	}
	return n
}

// pressed reports whether the deadline cannot be kept at the cap, and how many
// connections each step would have to close to keep it.
func (d *decider) pressed() (need int, pressed bool) {
	r := d.s.Rollout
	if r.Policy.Deadline == 0 || r.Aborting || r.Phase != Draining {
		return 0, false
	}
	held := 0
	for _, key := range d.olds() {
		n, _ := d.holds(key, d.s.Members[key])
		held += n
	}
	left := r.Started.Add(r.Policy.Deadline.D()).Sub(latest(d.now, r.StepAt))
	steps := int(left / r.Policy.Funnel.Every.D())
	if steps < 1 {
		return held, held > 0
	}
	need = (held + steps - 1) / steps
	return need, need > r.Policy.Funnel.Close
}

// Alarm says what an operator has to know although the rollout goes on; empty
// when there is nothing.
func Alarm(s State, seen Seen, now time.Time) string {
	r := s.Rollout
	if r == nil {
		return ""
	}
	d := decider{s: s, seen: seen, now: now}
	need, pressed := d.pressed()
	if !pressed {
		return ""
	}
	end := r.Started.Add(r.Policy.Deadline.D())
	switch {
	case !now.Before(end):
		return fmt.Sprintf("the deadline of %s has passed", clock(end))
	case r.Policy.Pressure == Hurry && need <= r.Policy.HurryCap:
		return fmt.Sprintf("hurrying: %d connections a step instead of %d, to keep the deadline of %s", need, r.Policy.Funnel.Close, clock(end))
	}
	return fmt.Sprintf("the deadline of %s is not to be kept at this pace; it would take %d connections every %s", clock(end), need, r.Policy.Funnel.Every)
}

// paced is the most closes of the next step, and why it is less than the limit.
func (d *decider) paced() (int, string) { return d.s.Rollout.Pace.of(d.limit()) }

// Allowance is how many connections a step may close, and why it is fewer than the
// limit; empty when it is not.
type Allowance struct {
	Close int    `json:"close,omitempty"`
	Why   string `json:"why,omitempty"`
}

// allowance is how many connections the next step closes; not ok when none, and
// why:
//
//	n = min(cap, pace, room − outstanding, window − outstanding)
func (d *decider) allowance(pace Pace) (given Allowance, why Reason, ok bool) {
	r := d.s.Rollout
	given.Close, given.Why = pace.of(d.limit())
	if room, known := d.room(); known {
		if key, silent := d.silent(); silent {
			return Allowance{}, d.wait(reason(FreshCounts, "waiting: how much room %s has is not known before %s says what it let go; bring it back, or deregister it", r.To, key)), false
		}
		if room <= 0 {
			return Allowance{}, d.wait(d.full()), false
		}
		if room < given.Close {
			given = Allowance{room, fmt.Sprintf("%s has no room for more", r.To)}
		}
	}
	if r.Policy.Window > 0 {
		left, why, ok := d.window()
		if !ok {
			return Allowance{}, d.wait(why), false
		}
		if left < given.Close {
			given = Allowance{left, fmt.Sprintf("more would not fit the window of %d", r.Policy.Window)}
		}
	}
	return given, Reason{}, true
}

// full says that the side that takes over has no room, and for whom.
func (d *decider) full() Reason {
	r := d.s.Rollout
	held, room := d.filled()
	if r.Policy.Stagger.InPlace {
		return reason(NoRoom, "waiting: %s is full (%d of %d, %d on their way); replace emptied %s instances by %s ones, or abort",
			r.To, held, held+room, d.moved().Outstanding, r.From, r.To)
	}
	return reason(NoRoom, "waiting: %s has no room for more (%d of %d, %d on their way); add %s instances, or abort", r.To, held, held+room, d.moved().Outstanding, r.To)
}

// capacity is how many connections the member may hold: what it declares or the
// policy's default, and no more than the limit that it says itself, times the
// headroom; 0 is no bound.
func (d *decider) capacity(key discovery.InstanceID, m Member, p Policy) int {
	in, _ := d.instance(key, m)
	n := cmp.Or(in.Capacity, p.Capacity)
	if limit := d.seen.Instances[key].Status.Limit; limit > 0 && (n == 0 || limit < n) {
		n = limit
	}
	return int(int64(n) * int64(cmp.Or(p.Headroom, units.Whole)) / int64(units.Whole))
}

// filled is what the open instances of the side that takes over hold, and how
// much more they may. Whoever does not say what it holds counts as full.
func (d *decider) filled() (held, room int) {
	r := d.s.Rollout
	for _, key := range d.open(r.To) {
		m := d.s.Members[key]
		n, known := d.filling(key, m)
		held += n
		if known {
			room += d.capacity(key, m, r.Policy) - n // one that is overfull leaves the others less
		}
	}
	return held, room
}

// brimful is which instances of the side that takes over are at their capacity
// while others of it have room: proxies share new connections out evenly and
// would go on sending them some. Nil when all may be sent some.
func (d *decider) brimful() map[discovery.InstanceID]bool {
	r := d.s.Rollout
	if r == nil || r.Phase != Draining {
		return nil
	}
	full := map[discovery.InstanceID]bool{}
	open := d.open(r.To)
	for _, key := range open {
		m := d.s.Members[key]
		n, known := d.filling(key, m)
		if most := d.capacity(key, m, r.Policy); most > 0 && known && n >= most {
			full[key] = true
		}
	}
	if len(full) == len(open) {
		return nil
	}
	return full
}

// filling is what an instance of the side that takes over holds. One without a
// drain endpoint that the proxies do not report holds what their witness counts
// beyond the reported ones.
func (d *decider) filling(key discovery.InstanceID, m Member) (n int, known bool) {
	if n, known = d.holds(key, m); known || m.Drain != "" {
		return n, known
	}
	w, ok := d.seen.Witnesses[m.Colour]
	if !ok || len(w.Missing) > 0 {
		return 0, false
	}
	n = w.Active
	for _, other := range d.side(m.Colour) {
		if load, ok := d.load(d.s.Members[other]); ok {
			n -= load.Held
		}
	}
	return max(0, n), true
}

// room is what the side that takes over can still take: Σ (⌊capacity ·
// headroom⌋ − active) over its open instances, less the clients that are on their
// way. It is not known, and no bound, unless every one of them has a capacity.
// Whoever does not answer counts as full, or as having closed all that it was
// last told to.
func (d *decider) room() (n int, known bool) {
	if d.found.room == nil {
		n, known := d.sumRoom()
		d.found.room, d.found.known = &n, known
	}
	return *d.found.room, d.found.known
}

func (d *decider) sumRoom() (int, bool) {
	r := d.s.Rollout
	open := d.open(r.To)
	for _, key := range open {
		if d.capacity(key, d.s.Members[key], r.Policy) == 0 {
			return 0, false
		}
	}
	if _, ok := d.silent(); ok {
		return 0, true
	}
	_, total := d.filled()
	total -= d.moved().AtMost
	for key, m := range d.s.Members {
		if !d.answers(key) && m.Drain != "" {
			total -= m.Share
		}
	}
	return total, len(open) > 0
}

// limits is how many connections the instances of each colour admit in all. A
// colour has a limit when every instance that takes new connections has one, and
// the limits of those that drain beside them count, too: a proxy cannot tell
// whose connections it counts.
func (d *decider) limits() map[discovery.Colour]int {
	out := map[discovery.Colour]int{}
	limited := false
	for _, sight := range d.seen.Instances {
		limited = limited || sight.Status.Limit > 0
	}
	if !limited {
		return out
	}
	for _, c := range discovery.Colours {
		total, open := 0, d.open(c)
		bounded := len(open) > 0
		for _, key := range d.side(c) {
			m := d.s.Members[key]
			if limit := d.seen.Instances[key].Status.Limit; d.s.drains(m) || d.serves(key, m) {
				total, bounded = total+limit, bounded && limit > 0
			}
		}
		if bounded {
			out[c] = total
		}
	}
	return out
}

// proxies is how many proxies share limits and rates: those that are connected,
// and after a restart those that are known and were not seen since.
func (d *decider) proxies() int {
	n := 0
	for _, p := range d.seen.Proxies {
		if p.Connected {
			n++
		}
	}
	for _, node := range d.s.Proxies {
		if !slices.ContainsFunc(d.seen.Proxies, func(p Proxy) bool { return p.Node == node }) {
			n++
		}
	}
	return max(1, n)
}
