package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
)

// nextBatch gives the next old instances their turn when those before hold
// nothing any more and the soak is over.
func (d *decider) nextBatch(o oldSide) Reason {
	r := d.s.Rollout
	if r.Batch > 0 && r.BatchAt.IsZero() {
		d.touch()
		r = d.s.Rollout
		r.BatchAt = d.now
		r.note(d.now, fmt.Sprintf("batch %d holds nothing any more, %s left", r.Batch, counted(len(o.waiting), "instance is", "instances are")))
	}
	if why, ok := d.soakingGates(); !ok {
		return why
	}
	r = d.s.Rollout
	if end := r.BatchAt.Add(r.Policy.Stagger.Soak.D()); r.Batch > 0 && !r.Aborting && d.now.Before(end) {
		d.wakeBy(end)
		return d.wait(reason(BatchSoak, "waiting: batch %d soaks until %s, %s left", r.Batch, clock(end), counted(len(o.waiting), "instance is", "instances are")))
	}
	turn := d.fitting(d.choose(o.waiting))
	if why, ok := d.roomFor(turn); !ok {
		return d.wait(why)
	}
	d.touch()
	r = d.s.Rollout
	r.Batch++
	r.BatchAt, r.Turned = time.Time{}, d.now
	for _, key := range turn {
		m := d.s.Members[key]
		m.Turn = r.Batch
		d.put(key, m)
	}
	r.note(d.now, fmt.Sprintf("batch %d: %s", r.Batch, keys(turn)))
	d.wake = d.now
	return d.letting(IsDraining)
}

// choose picks the next batch: as many as the policy says, the first in turn.
func (d *decider) choose(waiting []discovery.InstanceID) []discovery.InstanceID {
	return d.inTurn(waiting)[:min(d.batch(), len(waiting))]
}

// batch is how many old instances drain at a time.
func (d *decider) batch() int { return d.s.Rollout.Policy.Stagger.Instances.Of(len(d.olds())) }

// inTurn sorts old instances: those that the policy names first, then those that
// hold least.
func (d *decider) inTurn(waiting []discovery.InstanceID) []discovery.InstanceID {
	s := d.s.Rollout.Policy.Stagger
	rank := func(key discovery.InstanceID) int {
		if at := slices.Index(s.First, string(d.s.Members[key].ID)); at >= 0 {
			return at
		}
		return len(s.First)
	}
	held := func(key discovery.InstanceID) int {
		n, _ := d.holds(key, d.s.Members[key])
		return n
	}
	sorted := slices.Clone(waiting)
	slices.SortStableFunc(sorted, func(a, b discovery.InstanceID) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(held(a), held(b)))
	})
	return sorted
}

// fitting leaves of a batch in place those that the side that takes over has room
// for, but one at least: if all of them waited half empty none could be replaced,
// and there would never be more room.
func (d *decider) fitting(batch []discovery.InstanceID) []discovery.InstanceID {
	room, known := d.room()
	if !d.s.Rollout.Policy.Stagger.InPlace || !known {
		return batch
	}
	for i, key := range batch {
		n, _ := d.holds(key, d.s.Members[key])
		if room -= n; room < 0 {
			return batch[:max(1, i)]
		}
	}
	return batch
}

// roomFor has a batch begin in place only when the side that takes over has room
// for at least half of what it holds: an instance that waits half empty helps
// nobody.
func (d *decider) roomFor(batch []discovery.InstanceID) (Reason, bool) {
	room, known := d.room()
	if !d.s.Rollout.Policy.Stagger.InPlace || !known {
		return Reason{}, true
	}
	held := 0
	for _, key := range batch {
		n, _ := d.holds(key, d.s.Members[key])
		held += n
	}
	if 2*room < held {
		r := d.s.Rollout
		return reason(NoRoom, "waiting: %s has room for %d of the %d connections of %s; replace emptied %s instances by %s ones, or abort",
			r.To, max(0, room), held, keys(batch), r.From, r.To), false
	}
	return Reason{}, true
}

// spill sends new connections to old instances whose turn has not come while the
// side that takes over is full, and back when a fiftieth of it is free.
func (d *decider) spill() {
	r := d.s.Rollout
	if !r.Policy.Stagger.InPlace {
		return
	}
	held, free := d.filled()
	_, bounded := d.room()
	full := bounded && (free <= 0 || r.Spill && free*50 < held+free)
	if full {
		full = slices.ContainsFunc(d.open(r.From), func(key discovery.InstanceID) bool { return r.old(d.s.Members[key]) })
	}
	if full != r.Spill {
		d.touch()
		d.s.Rollout.Spill = full
	}
}
