package rollout

import (
	"maps"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/drain"
)

const (
	// goneAfter is how long an endpoint must refuse connections before an
	// instance that discovery does not call healthy is taken for dead.
	goneAfter = 10 * time.Second
	// departedSettle is how long after an instance left discovery its count is
	// not yet believed: a handshake may have been on its way.
	departedSettle = 5 * time.Second
	// forgetAfter bounds how long a departed instance that nobody can ask stays
	// among the endpoints. Taking an endpoint away ends no connection in it
	// (measured); it only loses sight of them.
	forgetAfter = 24 * time.Hour
	// witnessMaxAge is how old the proxies' counters may be to be acted on.
	witnessMaxAge = 15 * time.Second
)

// situation is what a decision, a plan or a wish is made of: the state, what is
// seen, and now. Its methods only read; what changes a state is a turn.
type situation struct {
	state State
	seen  Seen
	now   time.Time
	memo  *memo
}

// memo holds what was computed from the situation, for large fleets. The first two
// hold while no member comes or goes, the others until the state is written.
type memo struct {
	keys  []discovery.InstanceID       // of all members, in order
	where map[discovery.InstanceID]int // in Seen.Fleet.Instances

	open  map[discovery.Colour][]discovery.InstanceID
	moved *Moved
	room  *roomLeft
}

func newSituation(s State, seen Seen, now time.Time) *situation {
	return &situation{state: s, seen: seen, now: now, memo: &memo{}}
}

// Lists of members. Each is in a stable order.

// all lists every member; the list is not to be changed.
func (s *situation) all() []discovery.InstanceID {
	if s.memo.keys == nil {
		s.memo.keys = slices.Sorted(maps.Keys(s.state.Members))
	}
	return s.memo.keys
}

func (s *situation) members(which func(discovery.InstanceID, Member) bool) []discovery.InstanceID {
	var keys []discovery.InstanceID
	for _, key := range s.all() {
		if which(key, s.state.Members[key]) {
			keys = append(keys, key)
		}
	}
	return keys
}

// oldMembers lists the members that let their connections go.
func (s *situation) oldMembers() []discovery.InstanceID {
	return s.members(func(_ discovery.InstanceID, m Member) bool { return s.state.Rollout.old(m) })
}

// targetMembers lists the members of the target.
func (s *situation) targetMembers() []discovery.InstanceID {
	return s.members(func(_ discovery.InstanceID, m Member) bool { return s.state.Rollout.takes(m) })
}

// colour lists the members of a colour.
func (s *situation) colour(c discovery.Colour) []discovery.InstanceID {
	return s.members(func(_ discovery.InstanceID, m Member) bool { return m.Colour == c })
}

// open lists the healthy instances of a colour that take new connections; the
// list is not to be changed.
func (s *situation) open(c discovery.Colour) []discovery.InstanceID {
	if keys, ok := s.memo.open[c]; ok {
		return keys
	}
	keys := s.members(func(key discovery.InstanceID, m Member) bool {
		return m.Colour == c && !s.state.drains(m) && s.serves(key, m) && !s.seen.Instances[key].refusing()
	})
	if s.memo.open == nil {
		s.memo.open = map[discovery.Colour][]discovery.InstanceID{}
	}
	s.memo.open[c] = keys
	return keys
}

// What is known of one member.

// instance finds the member in discovery; departed ones are not there.
func (s *situation) instance(key discovery.InstanceID, m Member) (discovery.Instance, bool) {
	if key != m.ID || !m.Departed.IsZero() {
		return discovery.Instance{}, false
	}
	if s.memo.where == nil {
		s.memo.where = make(map[discovery.InstanceID]int, len(s.seen.Fleet.Instances))
		for i, in := range s.seen.Fleet.Instances {
			s.memo.where[in.ID] = i
		}
	}
	i, ok := s.memo.where[m.ID]
	if !ok {
		return discovery.Instance{}, false
	}
	return s.seen.Fleet.Instances[i], true
}

// serves reports whether discovery calls the member healthy.
func (s *situation) serves(key discovery.InstanceID, m Member) bool {
	in, ok := s.instance(key, m)
	return ok && in.Health.Serves()
}

func (s Sighting) refusing() bool { return !s.At.IsZero() && s.Status.State != drain.Serving }

// answers reports whether the member's endpoint answered the newest request.
func (s *situation) answers(key discovery.InstanceID) bool {
	sight := s.seen.Instances[key]
	return sight.Err == "" && !sight.At.IsZero()
}

// gated reports whether the instance has said in this epoch that it refuses new
// connections. What it holds can then only fall.
func (s *situation) gated(key discovery.InstanceID) bool {
	sight := s.seen.Instances[key]
	return sight.refusing() && sight.Status.Rollout == s.state.Rollout.ID && sight.Status.Epoch == s.state.Epoch
}

// dead reports whether the member's process no longer exists, by two witnesses:
// discovery does not call it healthy, and its endpoint refuses connections.
func (s *situation) dead(key discovery.InstanceID, m Member) bool {
	sight := s.seen.Instances[key]
	return !s.serves(key, m) && sight.Refused && s.now.Sub(sight.FailingSince) >= goneAfter
}

// departedEmpty reports whether a departed member is proven to hold nothing, or
// has been away so long without anybody to ask that it is given up.
func (s *situation) departedEmpty(key discovery.InstanceID, m Member) bool {
	sight := s.seen.Instances[key]
	if m.Drain == "" && s.witnessedEmpty(m.Colour) && s.seen.Witnesses[m.Colour].At.After(m.Departed.Add(departedSettle)) {
		return true
	}
	asked := sight.At.After(m.Departed.Add(departedSettle)) && sight.Err == ""
	return asked && sight.Status.Active == 0 || s.dead(key, m) || s.now.Sub(m.Departed) > forgetAfter
}

// load is what the proxies report of the member.
func (s *situation) load(m Member) (Load, bool) {
	if len(s.seen.Loads) == 0 {
		return Load{}, false
	}
	load, ok := s.seen.Loads[Place{m.Colour, m.Addr}]
	return load, ok
}

// holds is how many connections the member holds, by its own word or, where it
// has no drain endpoint, by the proxies'. known is false when nobody says; 0 is
// proof only where the member itself or the witness of its colour says so.
func (s *situation) holds(key discovery.InstanceID, m Member) (n int, known bool) {
	if m.Drain != "" {
		sight := s.seen.Instances[key]
		return sight.Status.Active, !sight.At.IsZero()
	}
	if s.witnessedEmpty(m.Colour) {
		return 0, true
	}
	load, ok := s.load(m)
	return load.Held, ok && load.Held > 0
}

// admissions are the member's totals: by its own word where it has one, and what it
// refused also by the proxies'.
func (s *situation) admissions(key discovery.InstanceID, m Member) Admissions {
	load, _ := s.load(m)
	if sight := s.seen.Instances[key]; m.Drain != "" {
		return Admissions{sight.Status.Accepted, max(sight.Status.Refused, load.Refused)}
	}
	return load.Admissions
}

// What is known of all.

// witnessedEmpty reports whether every proxy that may hold a connection of the
// colour says that it holds none.
func (s *situation) witnessedEmpty(c discovery.Colour) bool {
	for _, node := range s.state.Proxies {
		if _, seen := s.proxy(node); !seen {
			return false // it may hold some and was not seen since this process started
		}
	}
	w, ok := s.seen.Witnesses[c]
	return ok && len(w.Missing) == 0 && w.Active == 0 && s.now.Sub(w.At) <= witnessMaxAge
}

func (s *situation) proxy(node string) (Proxy, bool) {
	i := slices.IndexFunc(s.seen.Proxies, func(p Proxy) bool { return p.Node == node })
	if i < 0 {
		return Proxy{}, false
	}
	return s.seen.Proxies[i], true
}

// unheard names an instance that was counted and has said nothing since this
// process started.
func (s *situation) unheard() (discovery.InstanceID, bool) {
	for _, key := range s.all() {
		if m := s.state.Members[key]; m.Counted && m.Drain != "" && s.seen.Instances[key].At.IsZero() {
			return key, true
		}
	}
	return "", false
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

// targetUnfit says why the target cannot be sent clients.
func (s *situation) targetUnfit() *blocker {
	r := s.state.Rollout
	if s.seen.Fleet.Err != "" {
		return blocked(StaleDiscovery, "waiting: %s", s.seen.Fleet.Err)
	}
	if s.seen.Fleet.Suspect != "" {
		return blocked(StaleDiscovery, "waiting: %s", s.seen.Fleet.Suspect)
	}
	for _, key := range s.targetMembers() {
		m := s.state.Members[key]
		if in, ok := s.instance(key, m); ok && !in.Health.Serves() {
			return blocked(TargetSick, "waiting: %s instance %s is %s; deregister it to go on without it", r.To, key, in.Health)
		} else if sight := s.seen.Instances[key]; ok && m.Counted && sight.Refused {
			// Its process is gone, and no health check has noticed yet.
			return blocked(TargetSick, "waiting: %s instance %s answers no more (%s); bring it back, or deregister it to go on without it", r.To, key, sight.Err)
		}
	}
	if len(s.open(r.To)) == 0 {
		return blocked(TargetSick, "waiting: %s has no healthy instance that takes new connections; start some, or abort", r.To)
	}
	return nil
}
