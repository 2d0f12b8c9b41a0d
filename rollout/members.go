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
	// proxyForgotten is how long a proxy may be away before promotions stop
	// waiting for it.
	proxyForgotten = 24 * time.Hour
)

// absorb takes what is in discovery into the members: new ones are added, those
// that left are marked departed, departed ones that are proven empty are
// forgotten. A drain endpoint is one process: a departed member whose endpoint an
// instance in discovery has now is that instance under its former name or colour,
// and is forgotten too. It also remembers every proxy that connected.
func (d *decider) absorb() {
	present := make(map[discovery.InstanceID]bool, len(d.seen.Fleet.Instances))
	claimed := make(map[string]bool, len(d.seen.Fleet.Instances))
	for _, in := range d.seen.Fleet.Instances {
		present[in.ID], claimed[in.Drain] = true, in.Drain != ""
		m, known := d.s.Members[in.ID]
		if known && m.Colour == in.Colour && m.Addr == in.Addr {
			if !m.Departed.IsZero() || m.Drain != in.Drain {
				m.Departed, m.Drain = time.Time{}, in.Drain
				d.put(in.ID, m)
			}
			continue
		}
		if known && claimed[m.Drain] {
			d.fold(in.ID, m) // what it holds is seen through whoever has its endpoint now
		} else if known {
			// The same id with another colour or address is another member: the
			// connections of the former one are still where they were.
			m.Departed = d.now
			d.put(former(m), m)
		}
		fresh := Member{ID: in.ID, Colour: in.Colour, Addr: in.Addr, Drain: in.Drain}
		if back, ok := d.s.Members[former(fresh)]; ok {
			d.drop(former(fresh))
			fresh = back
			fresh.Departed, fresh.Drain = time.Time{}, in.Drain
		}
		d.put(in.ID, fresh)
	}
	for _, key := range slices.Sorted(maps.Keys(d.s.Members)) {
		m := d.s.Members[key]
		switch {
		case present[key] && key == m.ID:
		case m.Departed.IsZero():
			m.Departed = d.now
			d.put(key, m)
		case claimed[m.Drain] || d.departedEmpty(key, m):
			d.fold(key, m)
			d.drop(key)
		}
	}
	d.absorbProxies()
}

// former is the key of a member whose id was taken over by another instance.
func former(m Member) discovery.InstanceID {
	return discovery.InstanceID(string(m.ID) + "@" + m.Addr.String() + "/" + string(m.Colour))
}

// departedEmpty reports whether a departed member is proven to hold nothing, or
// has been away so long without anybody to ask that it is given up.
func (d *decider) departedEmpty(key discovery.InstanceID, m Member) bool {
	sight := d.seen.Instances[key]
	asked := sight.At.After(m.Departed.Add(departedSettle)) && sight.Err == ""
	return asked && sight.Status.Active == 0 || d.dead(key, m) || d.now.Sub(m.Departed) > forgetAfter
}

// dead reports whether the member's process no longer exists, by two witnesses:
// discovery does not call it healthy, and its endpoint refuses connections.
func (d *decider) dead(key discovery.InstanceID, m Member) bool {
	sight := d.seen.Instances[key]
	return !d.serves(key, m) && sight.Refused && d.now.Sub(sight.FailingSince) >= goneAfter
}

// serves reports whether discovery calls the member healthy.
func (d *decider) serves(key discovery.InstanceID, m Member) bool {
	in, ok := d.instance(key, m)
	return ok && in.Health.Serves()
}

// instance finds the member in discovery; departed ones are not there.
func (d *decider) instance(key discovery.InstanceID, m Member) (discovery.Instance, bool) {
	if key != m.ID || !m.Departed.IsZero() {
		return discovery.Instance{}, false
	}
	if d.where == nil {
		d.where = make(map[discovery.InstanceID]int, len(d.seen.Fleet.Instances))
		for i, in := range d.seen.Fleet.Instances {
			d.where[in.ID] = i
		}
	}
	i, ok := d.where[m.ID]
	if !ok {
		return discovery.Instance{}, false
	}
	return d.seen.Fleet.Instances[i], true
}

// side lists the members of a colour in a stable order; the list is the caller's.
func (d *decider) side(c discovery.Colour) []discovery.InstanceID {
	if d.sides == nil {
		d.sides = map[discovery.Colour][]discovery.InstanceID{}
		for key, m := range d.s.Members {
			d.sides[m.Colour] = append(d.sides[m.Colour], key)
		}
		for _, keys := range d.sides {
			slices.Sort(keys)
		}
	}
	return slices.Clone(d.sides[c])
}

// count starts counting a member's evictions and returns for this rollout.
func (d *decider) count(key discovery.InstanceID, status drain.Status) {
	m := d.s.Members[key]
	m.Counted, m.Evicted, m.Returned = true, status.Evicted, 0
	if status.Returned != nil {
		m.Returned = *status.Returned
	}
	d.put(key, m)
}

// fold adds what a member evicted and saw return to the rollout's sums and stops
// counting it.
func (d *decider) fold(key discovery.InstanceID, m Member) {
	if d.s.Rollout == nil || !m.Counted {
		return
	}
	evicted, returned := m.since(d.seen.Instances[key].Status)
	d.touch()
	d.s.Rollout.Evicted += evicted
	d.s.Rollout.Returned += returned
	m.Counted, m.Evicted, m.Returned = false, 0, 0
	d.put(key, m)
}

// since is what the member evicted and saw return since it was counted; a
// process that started anew counts from 0.
func (m Member) since(s drain.Status) (evicted, returned uint64) {
	if s.Evicted >= m.Evicted {
		evicted = s.Evicted - m.Evicted
	}
	if s.Returned != nil && *s.Returned >= m.Returned {
		returned = *s.Returned - m.Returned
	}
	return evicted, returned
}

// Moved is how many clients the rollout has evicted and how many of them came
// back. Exact is false, and returned meaningless, when an instance of the side
// that takes over cannot tell returning clients from new ones.
func Moved(s State, seen Seen) (evicted, returned uint64, exact bool) {
	if s.Rollout == nil {
		return 0, 0, false
	}
	evicted, returned, exact = s.Rollout.Evicted, s.Rollout.Returned, true
	for key, m := range s.Members {
		sight := seen.Instances[key]
		if m.Counted {
			e, r := m.since(sight.Status)
			evicted, returned = evicted+e, returned+r
		}
		if m.Colour == s.Rollout.To && m.Departed.IsZero() && sight.Status.Returned == nil {
			exact = false
		}
	}
	return evicted, returned, exact
}

func (d *decider) absorbProxies() {
	for _, p := range d.seen.Proxies {
		i, known := slices.BinarySearch(d.s.Proxies, p.Node)
		switch {
		case p.Connected && !known:
			d.touch()
			d.s.Proxies = slices.Insert(d.s.Proxies, i, p.Node)
		case !p.Connected && known && d.now.Sub(p.Lost) > proxyForgotten:
			d.touch()
			d.s.Proxies = slices.Delete(d.s.Proxies, i, i+1)
		}
	}
}
