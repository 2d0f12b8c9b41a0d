package rollout

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/sluice-proxy/sluice/rollout/state"
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
	r.Batches = state.Batches{Batch: r.Batch + 1, Turned: t.now, Spill: r.Spill}
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

// oldSide is the members whose turn it is to drain, sorted by what can be done
// about them; proven empty ones are in none.
type oldSide struct {
	held        []*fact // answers, refuses, holds connections
	unreachable []*fact // has a drain endpoint that does not answer
	noEndpoint  []*fact // has none; the operator or the hook ends it
	late        []*fact // answers, but does not refuse yet
	// contradicted say that they hold nothing, and the proxies that they hold some.
	contradicted []*fact
	ending       []*fact // nothing lasts there, but something has not ended yet
	waiting      []*fact // its turn has not come
}

// empty reports whether nobody whose turn it is holds anything.
func (o oldSide) empty() bool {
	return len(o.held)+len(o.unreachable)+len(o.noEndpoint)+len(o.late)+len(o.contradicted)+len(o.ending) == 0
}

func (s *situation) sortOld() oldSide {
	var o oldSide
	stagger := s.state.Rollout.Policy.Stagger
	staggered := !stagger.Instances.IsZero()
	for _, f := range s.members().old {
		switch {
		case f.dead:
		case staggered && s.state.Members[f.key].Turn == 0:
			if f.held > 0 || !f.known || stagger.InPlace && s.state.Members[f.key].Departed.IsZero() {
				o.waiting = append(o.waiting, f)
			}
		case !f.endpoint:
			if !s.ended(f) {
				o.noEndpoint = append(o.noEndpoint, f)
			}
		case f.held+f.ending == 0 && f.gated && contradicted(s, f) > 0:
			o.contradicted = append(o.contradicted, f)
		case f.held+f.ending == 0 && f.gated: // by its own word, so it need not answer for ever
		case !f.answers && s.neverMoved(f):
		case !f.answers:
			o.unreachable = append(o.unreachable, f)
		case !f.gated:
			o.late = append(o.late, f)
		case f.held > 0:
			o.held = append(o.held, f)
		default:
			o.ending = append(o.ending, f)
		}
	}
	return o
}

// neverMoved reports whether an abort has nothing to take back from a member that does
// not answer: by its last word, if it ever said one, it held nothing, and the proxies
// have proven since the gates closed that they hold nothing of its colour.
func (s *situation) neverMoved(f *fact) bool {
	r := s.state.Rollout
	return r.Aborting && f.held == 0 && s.witnessedEmpty(f.colour) && s.seen.Witnesses[f.colour].At.After(r.Settled)
}

// ended reports whether a member without a drain endpoint has nothing left to
// let go: the proxies' witness says so, or the operator or the hook has ended it.
func (s *situation) ended(f *fact) bool {
	m := s.state.Members[f.key]
	switch {
	case s.witnessedEmpty(m.Colour):
		return true
	case m.Departed.IsZero():
		return s.hookSucceeded(f.key, m) && !f.serves
	}
	load, _ := s.load(m)
	w, ok := s.seen.Witnesses[m.Colour]
	return load.Held == 0 || !ok || len(w.Missing) > 0
}

// stuck says what is waited for when no instance can be told to let go.
func stuck(s *situation, o oldSide) *blocker {
	switch {
	case len(o.late) > 0:
		return blocked(GateOpen, "waiting: %s instance %s has not said yet that it refuses new connections", s.state.Rollout.From, o.late[0].key)
	case len(o.unreachable) > 0:
		why := cmp.Or(s.seen.Instances[o.unreachable[0].key].Err, "it has not answered yet")
		return blocked(Unreachable, "waiting: %s cannot be told to let go (%s); bring it back, or stop the instance and deregister it", keys(o.unreachable), why)
	case len(o.contradicted) > 0:
		return disagreement(s, o.contradicted[0])
	case len(o.ending) > 0:
		f := o.ending[0]
		if n := s.seen.Instances[f.key].Status.Lingering; n > 0 {
			return blocked(Ending, "waiting: %s has let everybody go, but %s not ended; look at the handlers there, or stop the instance and deregister it", f.key, counted(n, "connection has", "connections have"))
		}
		return blocked(Ending, "waiting: %s holds nobody any more, but %s under way there; they end by themselves", f.key, counted(f.ending, "short request is", "short requests are"))
	default:
		return blocked(NoEndpoint, "waiting: %s has no drain endpoint; stop the instance and deregister it when its connections may end", keys(o.noEndpoint))
	}
}

// stepRuns reports whether the running step may still close connections.
func (s *situation) stepRuns() bool {
	for _, m := range s.state.Members {
		if m.Ceiling != nil {
			return true
		}
	}
	return false
}
