package rollout

import (
	"cmp"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// roomLeft is what the target can still take, in connections; unknown is no bound.
type roomLeft struct {
	n     int
	known bool
}

// room is what the target can still take: Σ (⌊capacity · headroom⌋ − active) over
// its open instances, less the clients that are on their way. It is not known, and
// no bound, unless every one of them has a capacity. An instance that does not answer
// counts as full, or as having closed all that it was last told to.
func (s *situation) room() (n int, known bool) {
	if s.memo.room == nil {
		n, known := s.sumRoom()
		s.memo.room = &roomLeft{n, known}
	}
	return s.memo.room.n, s.memo.room.known
}

func (s *situation) sumRoom() (int, bool) {
	r := s.state.Rollout
	open := s.members().open[r.To]
	for _, f := range open {
		if s.capacity(f, r.Policy) == 0 {
			return 0, false
		}
	}
	if _, ok := s.unheard(); ok {
		return 0, true
	}
	_, total := s.usage()
	total -= s.moved().AtMost
	for _, f := range s.members().all {
		if !f.answers && f.endpoint {
			total -= s.state.Members[f.key].Share
		}
	}
	return total, len(open) > 0
}

// capacity is how many connections the member may hold: what it declares or the
// policy's default, and no more than the limit that it says itself, times the
// headroom; 0 is no bound.
func (s *situation) capacity(f *fact, p policy.Policy) int {
	n := p.Capacity
	if f.instance != nil {
		n = cmp.Or(f.instance.Capacity, n)
	}
	if limit := s.seen.Instances[f.key].Status.Limit; limit > 0 && (n == 0 || limit < n) {
		n = limit
	}
	return int(int64(min(n, contract.MaxConnections)) * int64(cmp.Or(p.Headroom, units.Whole)) / int64(units.Whole))
}

// usage is how many connections the open instances of the target hold, and how many
// more they may. An instance that does not say what it holds counts as full, and one
// that is above its capacity takes room from the others.
func (s *situation) usage() (held, room int) {
	r := s.state.Rollout
	for _, f := range s.members().open[r.To] {
		n, known := s.usageOf(f)
		most := s.capacity(f, r.Policy)
		if borne := weight(s, f); borne < n { // it overstates, and uses its own room at most
			n = max(borne, min(n, most))
		} else if load, reported := s.load(s.state.Members[f.key]); reported && f.endpoint && complete(s, f.colour) {
			n = max(n, load.Held) // it understates
		}
		held += n
		if known {
			room += most - n
		}
	}
	return held, room
}

// usageOf is how many connections an instance of the target holds. One without a
// drain endpoint that the proxies do not report holds what their witness counts
// beyond the reported ones.
func (s *situation) usageOf(f *fact) (n int, known bool) {
	if f.known || f.endpoint {
		return f.held, f.known
	}
	w, ok := s.seen.Witnesses[f.colour]
	if !ok || len(w.Missing) > 0 {
		return 0, false
	}
	n = w.Active
	for _, other := range s.members().colour[f.colour] {
		if load, ok := s.load(s.state.Members[other.key]); ok {
			n -= load.Held
		}
	}
	return max(0, n), true
}

// full says that the target has no room, and for how many.
func (s *situation) full() *blocker {
	r := s.state.Rollout
	held, room := s.usage()
	if r.Policy.Stagger.InPlace {
		return blocked(NoRoom, "waiting: %s is full (%d of %d, %d on their way); replace emptied %s instances by %s ones, or abort",
			r.To, held, held+room, s.moved().Outstanding, r.From, r.To)
	}
	return blocked(NoRoom, "waiting: %s has no room for more (%d of %d, %d on their way); add %s instances, or abort", r.To, held, held+room, s.moved().Outstanding, r.To)
}

// closeFull closes the target's endpoints that are at their capacity while others of it
// have room: proxies share new connections out evenly and would go on sending them some.
func (s *situation) closeFull(endpoints map[discovery.Colour][]desired.Endpoint) {
	r := s.state.Rollout
	if r == nil || r.Phase != state.Draining {
		return
	}
	full := map[discovery.InstanceID]bool{}
	open := s.members().open[r.To]
	for _, f := range open {
		n, known := s.usageOf(f)
		if most := s.capacity(f, r.Policy); most > 0 && known && n >= most {
			full[f.key] = true
		}
	}
	if len(full) == len(open) {
		return
	}
	for i, e := range endpoints[r.To] {
		endpoints[r.To][i].Draining = e.Draining || full[e.ID]
	}
}

// countsReturns reports whether a decision depends on how many clients are on their
// way.
func (s *situation) countsReturns() bool {
	_, bounded := s.room()
	return bounded || s.state.Rollout.Policy.Window > 0
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

// Room is what the instances of a colour that take new connections hold, and
// the most that they may: their capacities, times the headroom.
type Room struct {
	Held     int `json:"held"`
	Capacity int `json:"capacity"`
}

// Rooms tells the room of each colour whose instances that take new
// connections all have a capacity and say what they hold. policy counts while
// there is no rollout.
func Rooms(s state.State, seen observed.Seen, terms policy.Policy, now time.Time) map[discovery.Colour]Room {
	if s.Rollout != nil {
		terms = s.Rollout.Policy
	}
	ahead := newSituation(s, seen, now)
	out := map[discovery.Colour]Room{}
	for _, c := range discovery.Colours {
		open, room, known := ahead.members().open[c], Room{}, true
		for _, f := range open {
			n, says := ahead.usageOf(f)
			capacity := ahead.capacity(f, terms)
			room.Held, room.Capacity = room.Held+n, room.Capacity+capacity
			known = known && says && capacity > 0
		}
		if known && len(open) > 0 {
			out[c] = room
		}
	}
	return out
}
