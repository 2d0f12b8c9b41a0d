package rollout

import (
	"cmp"
	"fmt"
	"slices"
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

func beginBatch(t *turn, batch []*fact) {
	r := t.rollout()
	r.Batches = Batches{Batch: r.Batch + 1, Turned: t.now, Spill: r.Spill}
	for _, f := range batch {
		m := t.state.Members[f.key]
		m.Turn = r.Batch
		t.put(f.key, m)
	}
	t.note(fmt.Sprintf("batch %d: %s", r.Batch, keys(batch)))
}

// batchSize is how many old instances drain at a time.
func (s *situation) batchSize() int {
	return s.state.Rollout.Policy.Stagger.Instances.Of(len(s.members().old))
}

// inTurn sorts old instances: those that the policy names first, then those that
// hold least.
func (s *situation) inTurn(waiting []*fact) []*fact {
	first := s.state.Rollout.Policy.Stagger.First
	rank := func(f *fact) int {
		if at := slices.Index(first, string(s.state.Members[f.key].ID)); at >= 0 {
			return at
		}
		return len(first)
	}
	sorted := slices.Clone(waiting)
	slices.SortStableFunc(sorted, func(a, b *fact) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.held, b.held))
	})
	return sorted
}

// fitting leaves of a batch in place those that the target has room for, but one at
// least: if all of them waited half empty none could be replaced, and there would
// never be more room.
func (s *situation) fitting(batch []*fact) []*fact {
	room, known := s.room()
	if !s.state.Rollout.Policy.Stagger.InPlace || !known {
		return batch
	}
	for i, f := range batch {
		if room -= f.held; room < 0 {
			return batch[:max(1, i)]
		}
	}
	return batch
}

// noRoomFor has a batch in place wait while the target has room for less than half of
// what it holds: an instance that waits half empty helps nobody.
func (s *situation) noRoomFor(batch []*fact) *blocker {
	room, known := s.room()
	r := s.state.Rollout
	if !r.Policy.Stagger.InPlace || !known {
		return nil
	}
	held := 0
	for _, f := range batch {
		held += f.held
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
		full = slices.ContainsFunc(t.members().open[r.From], func(f *fact) bool { return f.old })
	}
	if full != r.Spill {
		t.rollout().Spill = full
	}
}
