package rollout

import (
	"cmp"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/state"
)

const (
	// goneAfter is how long an endpoint must refuse connections before an instance may
	// be taken for dead.
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
	state state.State
	seen  observed.Seen
	now   time.Time
	memo  *memo
}

// memo holds what was computed from the situation, for large fleets: the roster
// until its basis changes, the others until the state is written.
type memo struct {
	roster *roster
	moved  *state.Moved
	room   *roomLeft
	// complete is the colours of which every proxy that may hold something reports.
	complete map[discovery.Colour]bool
	// What is seen does not change: hearing is who is heard, proxies who is where among
	// the seen ones, by node.
	hearing *hearing
	proxies map[string]int
}

func newSituation(s state.State, seen observed.Seen, now time.Time) *situation {
	if seen.Fleet.Unread != "" {
		seen.Fleet = s.Remembered(seen.Fleet.Unread)
	}
	seen.Fleet = state.Named(s, seen.Fleet)
	made := &situation{state: s, seen: seen, now: now, memo: &memo{}}
	made.members() // everything else asks for them
	return made
}

// roster is every member with what is known of it. Each list is in the order of keys
// and never changed.
type roster struct {
	basis basis
	all   []fact
	// old let their connections go, target get the new ones; both are empty without a
	// rollout. colour and open are by colour; open are healthy and take new connections.
	// Of several registrations of one process one is in old, target and open.
	old, target  []*fact
	colour, open map[discovery.Colour][]*fact
	// unclaimed and moves are what was found of them, by colour.
	unclaimed map[discovery.Colour]int
	moves     map[discovery.Colour]bool
}

// basis is what a roster depends on beside the members.
type basis struct {
	epoch    uint64
	retired  bool
	rollout  string
	phase    state.Phase
	from, to discovery.Colour
}

func basisOf(s state.State) basis {
	b := basis{epoch: s.Epoch, retired: s.Retired}
	if r := s.Rollout; r != nil {
		b.rollout, b.phase, b.from, b.to = r.ID, r.Phase, r.From, r.To
	}
	return b
}

// fact is what is known of one member at this moment.
type fact struct {
	key      discovery.InstanceID
	colour   discovery.Colour
	departed time.Time // as the member's
	// old: it lets its connections go; takes: it is one of the target's; drains: it
	// gets no new connections because it drains. endpoint: it has a drain endpoint.
	old, takes, drains, endpoint bool
	// instance is the member in discovery, nil if it is not there; serves: it is
	// called healthy.
	instance *discovery.Instance
	serves   bool
	// heard is when it answered last; zero if never. answers: also the newest
	// request. refusing: it said then that it takes no new connections; gated: in this
	// epoch, so that what it holds can only fall.
	heard                    time.Time
	answers, refusing, gated bool
	// shut: it gets no new connections since it is Closed and says nothing else.
	shut bool
	// dead: its process no longer exists, by two witnesses: see isDead.
	dead bool
	// held is how many connections it holds, by its own word or, where it has no
	// endpoint, by the proxies'; known is false when nobody says. 0 is proof only where
	// the member itself or the witness of its colour says so.
	held  int
	known bool
	// ending is what it holds beside held by its own word: short requests, and what was told
	// to go and has not ended. No order is about these.
	ending int
	// asked is how many of held were asked to come over.
	asked int
	// recoloured: discovery calls it the other colour.
	recoloured bool
	// twin is what it shares with another registration.
	twin twin
	// reported: the proxies report a load of it.
	reported bool
	// admissions are its totals: by its own word where it has one, and what it
	// refused also by the proxies'.
	admissions observed.Admissions
}

// members looks at every member once.
func (s *situation) members() *roster {
	b := basisOf(s.state)
	if l := s.memo.roster; l != nil && l.basis == b {
		return l
	}
	l := &roster{
		basis: b, all: make([]fact, 0, len(s.state.Members)),
		colour: map[discovery.Colour][]*fact{}, open: map[discovery.Colour][]*fact{}, unclaimed: map[discovery.Colour]int{}, moves: map[discovery.Colour]bool{},
	}
	empty := map[discovery.Colour]bool{}
	for _, c := range discovery.Colours {
		empty[c] = s.witnessedEmpty(c)
	}
	twins := s.twins()
	for _, x := range s.listing() {
		m := s.state.Members[x.key]
		if x.key != m.ID || !m.Departed.IsZero() {
			x.in = nil
		}
		l.all = append(l.all, s.factOf(x, m, twins[x.key], empty[m.Colour]))
	}
	for i := range l.all {
		f := &l.all[i]
		l.colour[f.colour] = append(l.colour[f.colour], f)
		if f.twin.second {
			continue // the other is here
		}
		if f.serves && !f.drains && !f.refusing && !f.shut && !f.doubtful() {
			l.open[f.colour] = append(l.open[f.colour], f)
		}
		if f.old {
			l.old = append(l.old, f)
		}
		if f.takes && !f.twin.rival && !f.twin.alias {
			l.target = append(l.target, f)
		}
	}
	s.memo.roster = l
	return l
}

// listed is the key of a member with the instance of that id in discovery, if any.
type listed struct {
	key discovery.InstanceID
	in  *discovery.Instance
}

// listing lists all members by key. Discovery lists its instances by id, so mostly
// nothing is left to be searched or sorted.
func (s *situation) listing() []listed {
	all, instances := make([]listed, 0, len(s.state.Members)), s.seen.Fleet.Instances
	for i := range instances {
		in := &instances[i]
		if _, ok := s.state.Members[in.ID]; ok && (i == 0 || instances[i-1].ID != in.ID) {
			all = append(all, listed{in.ID, in})
		}
	}
	byKey := func(a, b listed) int { return cmp.Compare(a.key, b.key) }
	if !slices.IsSortedFunc(all, byKey) {
		slices.SortFunc(all, byKey)
	}
	if here := all; len(here) < len(s.state.Members) {
		for key := range s.state.Members {
			if _, ok := slices.BinarySearchFunc(here, listed{key: key}, byKey); !ok {
				all = append(all, listed{key: key})
			}
		}
		slices.SortFunc(all, byKey)
	}
	return all
}

// factOf gathers what is known of a member; x.in is nil where discovery does not have
// it, and empty: the proxies hold nothing of its colour.
func (s *situation) factOf(x listed, m state.Member, shared twin, empty bool) fact {
	key, in := x.key, x.in
	sight := s.seen.Instances[key]
	status := &sight.Status
	f := fact{
		key: key, colour: m.Colour, departed: m.Departed, endpoint: m.Drain != "" && !shared.borrowed, twin: shared, drains: s.state.Drains(m),
		instance: in, serves: in != nil && in.Health.Serves(),
		heard: sight.At, answers: sight.Err == "" && !sight.At.IsZero(), refusing: sight.Refusing(),
	}
	f.recoloured = in != nil && in.Colour != m.Colour
	f.shut = m.Closed && f.endpoint && (!f.answers || f.refusing)
	f.dead = isDead(s, &f, sight)
	if r := s.state.Rollout; r != nil {
		f.old, f.takes = r.Old(m), r.Takes(m)
		f.gated = f.refusing && status.Rollout == r.ID && status.Epoch == s.state.Epoch
	}
	load, reported := s.load(m)
	f.reported = reported
	switch {
	case f.endpoint:
		f.held, f.known, f.asked = status.Active, !sight.At.IsZero(), status.Asked
		f.ending = status.Requests + status.Lingering
		f.admissions = observed.Admissions{Accepted: status.Accepted, Refused: status.Refused}
	case empty:
		f.known, f.admissions = true, observed.Admissions{Accepted: load.Accepted}
	default:
		f.held, f.known, f.admissions = load.Held, reported && load.Held > 0, observed.Admissions{Accepted: load.Accepted}
	}
	return f
}

// doubtful reports whether discovery contradicts itself, or what is known, about what
// the member is: it gets no new connections while another of its colour does.
func (f *fact) doubtful() bool { return f.twin.rival || f.twin.alias || f.recoloured }

// said reports whether anybody says what its totals are: itself, or where it has no
// endpoint the proxies.
func (f *fact) said() bool { return !f.heard.IsZero() || !f.endpoint && f.reported }

// load is what the proxies report of the member.
func (s *situation) load(m state.Member) (observed.Load, bool) {
	if len(s.seen.Loads) == 0 {
		return observed.Load{}, false
	}
	load, ok := s.seen.Loads[observed.Place{Colour: m.Colour, Addr: m.Addr}]
	return load, ok
}

// witnessedEmpty reports whether every proxy that may hold a connection of the
// colour says that it holds none.
func (s *situation) witnessedEmpty(c discovery.Colour) bool {
	w := s.seen.Witnesses[c]
	return complete(s, c) && w.Active == 0 && w.Reported == 0
}

func (s *situation) proxy(node string) (observed.Proxy, bool) {
	if s.memo.proxies == nil {
		s.memo.proxies = make(map[string]int, len(s.seen.Proxies))
		for i, p := range s.seen.Proxies {
			s.memo.proxies[p.Node] = i
		}
	}
	i, ok := s.memo.proxies[node]
	if !ok {
		return observed.Proxy{}, false
	}
	return s.seen.Proxies[i], true
}

// departedEmpty reports whether a departed member is proven to hold nothing, or
// has been away so long without anybody to ask that it is given up.
func (s *situation) departedEmpty(f *fact) bool {
	m, sight := s.state.Members[f.key], s.seen.Instances[f.key]
	if !f.endpoint && s.witnessedEmpty(m.Colour) && s.seen.Witnesses[m.Colour].At.After(m.Departed.Add(departedSettle)) {
		return true
	}
	asked := sight.At.After(m.Departed.Add(departedSettle)) && sight.Err == ""
	return asked && sight.Status.Held() == 0 && contradicted(s, f) == 0 || f.dead || s.now.Sub(m.Departed) > forgetAfter
}

// unheard names an instance that was counted and has said nothing since this
// process started.
func (s *situation) unheard() (discovery.InstanceID, bool) {
	for _, f := range s.members().all {
		if f.endpoint && f.heard.IsZero() && s.state.Members[f.key].Counted {
			return f.key, true
		}
	}
	return "", false
}

// complete reports whether every proxy that may hold something of the colour has just
// said what: one that is known and was not seen since this process started may, too.
func complete(s *situation, c discovery.Colour) bool {
	if s.memo.complete == nil {
		s.memo.complete = map[discovery.Colour]bool{}
		seen := !slices.ContainsFunc(s.state.Proxies, func(node string) bool { _, seen := s.proxy(node); return !seen })
		for c, w := range s.seen.Witnesses {
			s.memo.complete[c] = seen && len(w.Missing) == 0 && s.now.Sub(w.At) <= witnessMaxAge
		}
	}
	return s.memo.complete[c]
}

// unheld reports whether the proxies prove that they hold nothing of the member: each
// that may hold something has said so, later than since.
func unheld(s *situation, m state.Member, since time.Time) bool {
	w := s.seen.Witnesses[m.Colour]
	if !complete(s, m.Colour) || !w.At.After(since) {
		return false
	}
	elsewhere := 0
	for at, load := range s.seen.Loads {
		switch {
		case at.Colour != m.Colour:
		case at.Addr == m.Addr && load.Held > 0:
			return false
		default:
			elsewhere += load.Held
		}
	}
	return w.Active <= elsewhere
}

// isDead reports whether the member's process no longer exists, by two witnesses: its
// endpoint has refused connections for goneAfter, and discovery does not call it healthy
// or, where nobody checks its health, no proxy holds a connection to it.
func isDead(s *situation, f *fact, sight observed.Sighting) bool {
	if !sight.Refused || s.now.Sub(sight.FailingSince) < goneAfter {
		return false
	}
	return !f.serves || unheld(s, s.state.Members[f.key], sight.FailingSince.Add(witnessSettle))
}
