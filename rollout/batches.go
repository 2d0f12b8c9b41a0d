package rollout

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/sluice-proxy/sluice/discovery"
)

// nextBatch gives the next old instances their turn when those before hold
// nothing any more and the soak is over.
func nextBatch(t *turn, o oldSide) Reason {
	r := t.state.Rollout
	left := counted(len(o.waiting), "instance is", "instances are")
	if r.Batch > 0 && r.BatchAt.IsZero() {
		t.rollout().BatchAt = t.now
		t.note(fmt.Sprintf("batch %d holds nothing any more, %s left", r.Batch, left))
	}
	if closed := followSoakingGates(t); closed != nil {
		return t.wait(closed)
	}
	if end := r.BatchAt.Add(r.Policy.Stagger.Soak.D()); r.Batch > 0 && !r.Aborting && t.now.Before(end) {
		return t.wait(blockedUntil(end, BatchSoak, "waiting: batch %d soaks until %s, %s left", r.Batch, clock(end), left))
	}
	batch := t.fitting(t.inTurn(o.waiting)[:min(t.batchSize(), len(o.waiting))])
	if full := t.noRoomFor(batch); full != nil {
		return t.wait(full)
	}
	beginBatch(t, batch)
	t.wake = t.now
	return t.paceReason(IsDraining)
}

func beginBatch(t *turn, batch []discovery.InstanceID) {
	r := t.rollout()
	r.Batches = Batches{Batch: r.Batch + 1, Turned: t.now, Spill: r.Spill}
	for _, key := range batch {
		m := t.state.Members[key]
		m.Turn = r.Batch
		t.put(key, m)
	}
	t.note(fmt.Sprintf("batch %d: %s", r.Batch, keys(batch)))
}

// batchSize is how many old instances drain at a time.
func (s *situation) batchSize() int {
	return s.state.Rollout.Policy.Stagger.Instances.Of(len(s.oldMembers()))
}

// inTurn sorts old instances: those that the policy names first, then those that
// hold least.
func (s *situation) inTurn(waiting []discovery.InstanceID) []discovery.InstanceID {
	first := s.state.Rollout.Policy.Stagger.First
	rank := func(key discovery.InstanceID) int {
		if at := slices.Index(first, string(s.state.Members[key].ID)); at >= 0 {
			return at
		}
		return len(first)
	}
	held := func(key discovery.InstanceID) int {
		n, _ := s.holds(key, s.state.Members[key])
		return n
	}
	sorted := slices.Clone(waiting)
	slices.SortStableFunc(sorted, func(a, b discovery.InstanceID) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(held(a), held(b)))
	})
	return sorted
}

// fitting leaves of a batch in place those that the target has room for, but one at
// least: if all of them waited half empty none could be replaced, and there would
// never be more room.
func (s *situation) fitting(batch []discovery.InstanceID) []discovery.InstanceID {
	room, known := s.room()
	if !s.state.Rollout.Policy.Stagger.InPlace || !known {
		return batch
	}
	for i, key := range batch {
		n, _ := s.holds(key, s.state.Members[key])
		if room -= n; room < 0 {
			return batch[:max(1, i)]
		}
	}
	return batch
}

// noRoomFor has a batch in place wait while the target has room for less than half of
// what it holds: an instance that waits half empty helps nobody.
func (s *situation) noRoomFor(batch []discovery.InstanceID) *blocker {
	room, known := s.room()
	r := s.state.Rollout
	if !r.Policy.Stagger.InPlace || !known {
		return nil
	}
	held := 0
	for _, key := range batch {
		n, _ := s.holds(key, s.state.Members[key])
		held += n
	}
	if 2*room >= held {
		return nil
	}
	return blocked(NoRoom, "waiting: %s has room for %d of the %d connections of %s; replace emptied %s instances by %s ones, or abort",
		r.To, max(0, room), held, keys(batch), r.From, r.To)
}

// spill sends new connections to old instances whose turn has not come while the
// target is full, and back when a fiftieth of it is free.
func spill(t *turn) {
	r := t.state.Rollout
	if !r.Policy.Stagger.InPlace {
		return
	}
	held, free := t.usage()
	_, bounded := t.room()
	full := bounded && (free <= 0 || r.Spill && free*50 < held+free)
	if full {
		full = slices.ContainsFunc(t.open(r.From), func(key discovery.InstanceID) bool { return r.old(t.state.Members[key]) })
	}
	if full != r.Spill {
		t.rollout().Spill = full
	}
}
