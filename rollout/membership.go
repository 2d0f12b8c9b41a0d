package rollout

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
)

// absorb takes what is in discovery into the members: new ones are added, those
// that left are marked departed, departed ones that are proven empty are
// forgotten. A drain endpoint is one process, or an address where there is none: a
// departed member whose an instance in discovery has now is that instance under its
// former name, and is forgotten too. It also remembers every proxy that connected and routes to it.
func absorb(t *turn) {
	if !t.asListed() {
		absorbFleet(t)
	}
	joinDrain(t)
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
		if m := s.state.Members[f.key]; f.instance == nil || !m.is(*f.instance) || m.Drain != f.instance.Drain || m.Node != f.instance.Node || updated(m, *f.instance, s.seen.Instances[f.key]) {
			return false
		}
	}
	return true
}

// is reports whether the instance is the member; its drain endpoint may have moved.
func (m Member) is(in discovery.Instance) bool { return m.Colour == in.Colour && m.Addr == in.Addr }

func absorbFleet(t *turn) {
	claims := claimsOf(t.seen.Fleet.Instances)
	for _, in := range t.seen.Fleet.Instances {
		absorbInstance(t, in)
	}
	for _, f := range t.members().all {
		m := t.state.Members[f.key]
		switch {
		case f.instance != nil:
		case m.Departed.IsZero():
			m.Departed = t.now
			t.put(f.key, m)
		case (claims.renamed(m) || t.departedEmpty(&f)) && !t.keeps(f.key):
			t.fold(f.key)
			t.drop(f.key)
		}
	}
}

// claims is the addresses and the drain endpoints of the instances in discovery.
type claims struct {
	addrs  map[netip.AddrPort]bool
	drains map[string]bool
}

func claimsOf(all []discovery.Instance) claims {
	c := claims{make(map[netip.AddrPort]bool, len(all)), make(map[string]bool, len(all))}
	for _, in := range all {
		c.addrs[in.Addr], c.drains[in.Drain] = true, true
	}
	return c
}

// renamed reports whether a departed member is in discovery under another name: what it
// holds is seen through that.
func (c claims) renamed(m Member) bool {
	if m.Drain == "" {
		return c.addrs[m.Addr]
	}
	return c.drains[m.Drain]
}

// absorbInstance makes the instance a member.
func absorbInstance(t *turn, in discovery.Instance) {
	m, known := t.state.Members[in.ID]
	again := known && m.Departed.IsZero() && updated(m, in, t.seen.Instances[in.ID])
	if known && m.Addr == in.Addr && !again && (m.Colour == in.Colour || staysAs(t.situation, in.ID)) {
		if !m.Departed.IsZero() || m.Drain != in.Drain || m.Node != in.Node {
			m.Departed, m.Drain, m.Node = time.Time{}, in.Drain, in.Node
			t.put(in.ID, m)
		}
		return
	}
	switch {
	case known && m.Addr == in.Addr, known && m.Drain != "" && m.Drain == in.Drain && m.Colour == in.Colour:
		t.fold(in.ID) // it held nothing, or what it holds is seen at its new address
	case known:
		// The same id at another address is another member: the connections of the
		// former one are still where they were.
		m.Departed = t.now
		t.put(former(m), m)
	}
	next := Member{Identity: Identity{ID: in.ID, Node: in.Node, Colour: in.Colour, Addr: in.Addr, Drain: in.Drain}}
	next.Fresh = (!known || again || m.Release.differs(in)) && joinsNext(t.situation, in)
	next.Closed = t.state.Rollout.closedAtFirst(in)
	if back, ok := t.state.Members[former(next)]; ok {
		t.drop(former(next))
		next = back
		next.Departed, next.Drain, next.Node = time.Time{}, in.Drain, in.Node
	}
	t.put(in.ID, next)
}

// former is the key of a member whose id was taken over by another instance.
func former(m Member) discovery.InstanceID {
	return discovery.InstanceID(string(m.ID) + "@" + m.Addr.String() + "/" + string(m.Colour))
}

// joinsNext reports whether an instance that nobody knew belongs to a later
// release: it joins the colour that drains already, and under no former name.
func joinsNext(s *situation, in discovery.Instance) bool {
	r := s.state.Rollout
	if r == nil || in.Colour != r.From || r.Phase != Draining && r.Phase != Soaking || r.Policy.Stagger.InPlace {
		return false
	}
	for key, m := range s.state.Members {
		if key != in.ID && (m.Addr == in.Addr || m.Drain != "" && m.Drain == in.Drain) {
			return false
		}
	}
	return true
}

// Release is which release a member ran, and in which process, when the rollout began:
// an update in place is the same id with another process and another version.
type Release struct {
	Version string `json:"version,omitempty"`
	// Boot stands for the name of the process; empty where it says none.
	Boot string `json:"boot,omitempty"`
}

// differs reports whether an instance is registered with another version. One that is
// not told is none.
func (r Release) differs(in discovery.Instance) bool {
	return r.Version != "" && in.Version != "" && in.Version != r.Version
}

// updated reports whether the member's id has another process with another release now.
// The same process is the same release, whatever its registration says meanwhile.
func updated(m Member, in discovery.Instance, now Sighting) bool {
	if !m.Release.differs(in) || now.At.IsZero() {
		return false
	}
	if boot := token(now.Status.Boot); m.Release.Boot != "" && boot != "" {
		return boot != m.Release.Boot
	}
	return len(now.Former) > 0
}

// joinDrain has a member that seemed to belong to a later release drain with the
// others when it turns out to hold connections.
func joinDrain(t *turn) {
	for key, m := range t.state.Members {
		if sight := t.seen.Instances[key]; m.Fresh && (sight.Status.Active > 0 || sight.refusing()) {
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
