package rollout

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// absorb takes what is in discovery into the members: new ones are added, those
// that left are marked departed, departed ones that are proven empty are
// forgotten. A drain endpoint is one process, or an address where there is none: a
// departed member whose an instance of its colour in discovery has now is that instance under
// its former name, and is forgotten too. It also remembers every proxy that connected and routes to it.
func absorb(t *turn) {
	if !t.asListed() {
		absorbFleet(t)
	}
	joinDrain(t)
	openHeard(t)
	absorbProxies(t)
}

// asListed reports whether the members are the instances in discovery, as they are
// there: mostly they are.
func (s *situation) asListed() bool {
	all := s.members().all
	if len(all) != len(s.seen.Fleet.Instances) {
		return false
	}
	for i := range all {
		f := &all[i]
		if m := s.state.Members[f.key]; f.instance == nil || !m.Is(*f.instance) || m.Drain != f.instance.Drain || m.Node != f.instance.Node || state.Updated(m, *f.instance, s.seen.Instances[f.key]) {
			return false
		}
	}
	return true
}

func absorbFleet(t *turn) {
	claims, closing := claimsOf(t.seen.Fleet.Instances), closingAtFirst(t.situation)
	var joined []discovery.InstanceID
	for _, in := range t.seen.Fleet.Instances {
		if absorbInstance(t, in, closing[in.Colour]) {
			joined = append(joined, in.ID)
		}
	}
	doubt(t, joined)
	for _, f := range t.members().all {
		m := t.state.Members[f.key]
		switch {
		case f.instance != nil:
		case m.Departed.IsZero():
			m.Departed = t.now
			t.put(f.key, m)
		case (claims.renamed(m) || claims.taken(m) && (m.Doubted || succeeded(t.situation, f.key)) || t.departedEmpty(&f)) && !t.keeps(f.key):
			t.fold(f.key)
			t.drop(f.key)
		}
	}
}

// claims is the addresses and the drain endpoints of the instances in discovery, with their
// colours.
type claims struct {
	addrs  map[colouredAddr]bool
	drains map[colouredDrain]bool
}

type colouredAddr struct {
	addr netip.AddrPort
	of   discovery.Colour
}

type colouredDrain struct {
	drain string
	of    discovery.Colour
}

func claimsOf(all []discovery.Instance) claims {
	c := claims{make(map[colouredAddr]bool, len(all)), make(map[colouredDrain]bool, len(all))}
	for _, in := range all {
		c.addrs[colouredAddr{in.Addr, in.Colour}], c.drains[colouredDrain{in.Drain, in.Colour}] = true, true
	}
	return c
}

// renamed reports whether a departed member is in discovery under another name: what it
// holds is seen through that. One that is there as the other colour was given its
// connections as this one.
func (c claims) renamed(m state.Member) bool {
	if m.Drain == "" {
		return c.addrs[colouredAddr{m.Addr, m.Colour}]
	}
	return c.drains[colouredDrain{m.Drain, m.Colour}]
}

// taken reports whether the departed member's drain endpoint is in discovery as the other
// colour's.
func (c claims) taken(m state.Member) bool { return c.drains[colouredDrain{m.Drain, m.Colour.Other()}] }

// absorbInstance makes the instance a member. Closed: who joins gets no new connections
// before it says that it takes them, if it can say so. It reports whether another member
// than before is behind the name.
func absorbInstance(t *turn, in discovery.Instance, closed bool) (joined bool) {
	m, known := t.state.Members[in.ID]
	again := known && m.Departed.IsZero() && state.Updated(m, in, t.seen.Instances[in.ID])
	if known && m.Addr == in.Addr && !again && (m.Colour == in.Colour || staysAs(t.situation, in.ID)) {
		if !m.Departed.IsZero() || m.Drain != in.Drain || m.Node != in.Node {
			m.Departed, m.Drain, m.Node = time.Time{}, in.Drain, in.Node
			t.put(in.ID, m)
		}
		return false
	}
	switch {
	case known && m.Addr == in.Addr, known && m.Drain != "" && m.Drain == in.Drain && m.Colour == in.Colour:
		t.fold(in.ID) // it held nothing, or what it holds is seen at its new address
	case known:
		// The same id at another address is another member: the connections of the
		// former one are still where they were.
		m.Departed = t.now
		t.put(state.FormerName(m), m)
	}
	next := state.Member{Identity: state.Identity{ID: in.ID, Node: in.Node, Colour: in.Colour, Addr: in.Addr, Drain: in.Drain}}
	next.Fresh = (!known || again || m.Release.Differs(in)) && joinsNext(t.situation, in)
	next.Closed = closed && in.Drain != ""
	if back, ok := t.state.Members[state.FormerName(next)]; ok {
		t.drop(state.FormerName(next))
		next = back
		next.Departed, next.Drain, next.Node = time.Time{}, in.Drain, in.Node
	}
	t.put(in.ID, next)
	return true
}

// doubt remembers of those that joined whether they are doubted, and of the others that they
// are no longer.
func doubt(t *turn, joined []discovery.InstanceID) {
	for _, f := range t.members().all {
		m := t.state.Members[f.key]
		doubted := (m.Doubted || slices.Contains(joined, f.key)) && (f.twin.rival || f.twin.alias || f.instance == nil)
		if m.Doubted != doubted {
			m.Doubted = doubted
			t.put(f.key, m)
		}
	}
}

// joinsNext reports whether an instance that nobody knew belongs to a later
// release: it joins the colour that drains already, and under no former name.
func joinsNext(s *situation, in discovery.Instance) bool {
	r := s.state.Rollout
	if r == nil || in.Colour != r.From || r.Phase != state.Draining && r.Phase != state.Soaking || r.Policy.Stagger.InPlace {
		return false
	}
	for key, m := range s.state.Members {
		if key != in.ID && (m.Addr == in.Addr || m.Drain != "" && m.Drain == in.Drain) {
			return false
		}
	}
	return true
}

// joinDrain has a member that seemed to belong to a later release drain with the
// others when it turns out to hold connections.
func joinDrain(t *turn) {
	for key, m := range t.state.Members {
		if sight := t.seen.Instances[key]; m.Fresh && (sight.Status.Held() > 0 || sight.Refusing()) {
			m.Fresh = false
			t.put(key, m)
		}
	}
}

// absorbProxies remembers who routes here, and where that is: a lost one is known to the
// instances by its machine.
func absorbProxies(t *turn) {
	var foreign []string
	for _, p := range t.seen.Proxies {
		i, known := slices.BinarySearch(t.state.Proxies, p.Node)
		switch {
		case p.Connected && p.Routes && !known:
			s := t.write()
			s.Proxies = slices.Insert(slices.Clone(s.Proxies), i, p.Node)
		case p.Connected && !p.Routes && known:
			foreign = append(foreign, p.Node)
		}
		if at := t.state.Machines[p.Node]; p.Connected && p.Routes && p.Addr.IsValid() && at != p.Addr {
			s := t.write()
			machines := maps.Clone(s.Machines)
			if machines == nil {
				machines = map[string]netip.Addr{}
			}
			machines[p.Node] = p.Addr
			s.Machines = machines
		}
	}
	if len(foreign) > 0 {
		t.forgetProxies(foreign...)
	}
	leaveLost(t)
}

// renew goes on with the process that each member is now: what those before it evicted
// and saw return is kept, what they held is lost, and the new one is counted from its
// beginning.
func renew(t *turn) {
	if t.state.Rollout == nil {
		return
	}
	for _, f := range t.members().all {
		if m, sight := t.state.Members[f.key], t.seen.Instances[f.key]; m.Counted && !m.Counts.Only(sight) {
			if lives := m.Lives(sight); len(lives) > 1 {
				renewMember(t, &f, lives)
			}
		}
	}
}

func renewMember(t *turn, f *fact, lives []contract.Status) {
	was := t.state.Members[f.key]
	lost := deeds(t.situation, f.key, was).Lost
	admitted := uint64(0)
	for i, life := range lives {
		if i == 0 {
			admitted += observed.Risen(was.Admissions.Accepted, life.Accepted)
		} else {
			admitted += life.Accepted
		}
	}
	t.fold(f.key)
	m := t.state.Members[f.key]
	m.Quota = state.Quota{}
	m.Counts = state.Counts{Counted: true}
	m.Counts = noted(t.situation, f.key, m)
	if f.takes {
		t.rollout().Accepted += admitted
		m.Admissions = f.admissions
	}
	t.put(f.key, m)
	if lost > 0 {
		t.note(restarted(f.key, lost))
	}
}

func restarted(key discovery.InstanceID, lost int) string {
	return fmt.Sprintf("%s is another process now; %s of the one before were lost", key, counted(lost, "connection", "connections"))
}

// leaveLost has nobody wait any more for the lost proxies that are proven to serve
// nobody, have ended after a hot restart, or were lost so long ago that nobody can say: all
// in one decision. None leaves while none is connected.
func leaveLost(t *turn) {
	if t.unproxied() != nil {
		return
	}
	var ended, unheard []string
	for _, x := range lostProxies(t.situation) {
		switch long := t.now.Sub(x.since); {
		case x.ended:
			ended = append(ended, x.node)
		case long >= silence && unproven(t.situation, x) == nil || long > proxyForgotten:
			unheard = append(unheard, x.node)
		}
	}
	leave(t, ended, "the process that was started in its place says that nothing of it is left")
	leave(t, unheard, "no instance hears of it")
}

// leave has nobody wait any more for the lost proxies, for that reason.
func leave(t *turn, lost []string, why string) {
	if len(lost) == 0 {
		return
	}
	t.forgetProxies(lost...)
	if t.state.Rollout == nil {
		return
	}
	who, are := "proxy "+lost[0], "is"
	if len(lost) > 1 {
		who, are = fmt.Sprintf("%d proxies (%s)", len(lost), names(lost)), "are"
	}
	r := t.rollout()
	r.LeftBehind = append(r.LeftBehind, who)
	t.note(fmt.Sprintf("%s %s not connected, and %s: left behind", who, are, why))
}

// lost is a proxy that a switch has to be confirmed by and that is not connected.
type lost struct {
	node  string
	addr  netip.Addr // the zero value is not known
	since time.Time
	ended bool // as observed.Proxy has it
}

// lostProxies lists them, by name.
func lostProxies(s *situation) (all []lost) {
	for _, node := range s.state.Proxies {
		p, seen := s.proxy(node)
		if p.Connected {
			continue
		}
		x := lost{node: node, addr: s.state.Machines[node], since: s.seen.Watching}
		if seen {
			x.since, x.ended = p.Lost, p.Ended
		}
		all = append(all, x)
	}
	return all
}
