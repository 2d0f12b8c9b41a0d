package rollout

import (
	"cmp"

	"github.com/sluice-proxy/sluice/discovery"
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
	open := s.open(r.To)
	for _, key := range open {
		if s.capacity(key, s.state.Members[key], r.Policy) == 0 {
			return 0, false
		}
	}
	if _, ok := s.unheard(); ok {
		return 0, true
	}
	_, total := s.usage()
	total -= s.moved().AtMost
	for key, m := range s.state.Members {
		if !s.answers(key) && m.Drain != "" {
			total -= m.Share
		}
	}
	return total, len(open) > 0
}

// capacity is how many connections the member may hold: what it declares or the
// policy's default, and no more than the limit that it says itself, times the
// headroom; 0 is no bound.
func (s *situation) capacity(key discovery.InstanceID, m Member, p Policy) int {
	in, _ := s.instance(key, m)
	n := cmp.Or(in.Capacity, p.Capacity)
	if limit := s.seen.Instances[key].Status.Limit; limit > 0 && (n == 0 || limit < n) {
		n = limit
	}
	return int(int64(n) * int64(cmp.Or(p.Headroom, units.Whole)) / int64(units.Whole))
}

// usage is how many connections the open instances of the target hold, and how many
// more they may. An instance that does not say what it holds counts as full, and one
// that is above its capacity takes room from the others.
func (s *situation) usage() (held, room int) {
	r := s.state.Rollout
	for _, key := range s.open(r.To) {
		m := s.state.Members[key]
		n, known := s.usageOf(key, m)
		held += n
		if known {
			room += s.capacity(key, m, r.Policy) - n
		}
	}
	return held, room
}

// usageOf is how many connections an instance of the target holds. One without a
// drain endpoint that the proxies do not report holds what their witness counts
// beyond the reported ones.
func (s *situation) usageOf(key discovery.InstanceID, m Member) (n int, known bool) {
	if n, known = s.holds(key, m); known || m.Drain != "" {
		return n, known
	}
	w, ok := s.seen.Witnesses[m.Colour]
	if !ok || len(w.Missing) > 0 {
		return 0, false
	}
	n = w.Active
	for _, other := range s.colour(m.Colour) {
		if load, ok := s.load(s.state.Members[other]); ok {
			n -= load.Held
		}
	}
	return max(0, n), true
}

// atCapacity is which instances of the target are at their capacity while others of
// it have room: proxies share new connections out evenly and would go on sending
// them some. Nil when all may be sent some.
func (s *situation) atCapacity() map[discovery.InstanceID]bool {
	r := s.state.Rollout
	if r == nil || r.Phase != Draining {
		return nil
	}
	full := map[discovery.InstanceID]bool{}
	open := s.open(r.To)
	for _, key := range open {
		m := s.state.Members[key]
		n, known := s.usageOf(key, m)
		if most := s.capacity(key, m, r.Policy); most > 0 && known && n >= most {
			full[key] = true
		}
	}
	if len(full) == len(open) {
		return nil
	}
	return full
}

// limits is how many connections the instances of each colour admit in all. A
// colour has a limit when every instance that takes new connections has one, and
// the limits of those that drain beside them count, too: a proxy cannot tell
// whose connections it counts.
func (s *situation) limits() map[discovery.Colour]int {
	out := map[discovery.Colour]int{}
	limited := false
	for _, sight := range s.seen.Instances {
		limited = limited || sight.Status.Limit > 0
	}
	if !limited {
		return out
	}
	for _, c := range discovery.Colours {
		total, open := 0, s.open(c)
		bounded := len(open) > 0
		for _, key := range s.colour(c) {
			m := s.state.Members[key]
			if limit := s.seen.Instances[key].Status.Limit; s.state.drains(m) || s.serves(key, m) {
				total, bounded = total+limit, bounded && limit > 0
			}
		}
		if bounded {
			out[c] = total
		}
	}
	return out
}
