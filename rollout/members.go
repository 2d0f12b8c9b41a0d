package rollout

import (
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
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
		fresh := Member{ID: in.ID, Colour: in.Colour, Addr: in.Addr, Drain: in.Drain, Fresh: !known && d.joinsNext(in)}
		if back, ok := d.s.Members[former(fresh)]; ok {
			d.drop(former(fresh))
			fresh = back
			fresh.Departed, fresh.Drain = time.Time{}, in.Drain
		}
		d.put(in.ID, fresh)
	}
	for _, key := range d.all() {
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
	d.unfresh()
	d.absorbProxies()
}

// unfresh has a member that seemed to belong to a later release drain with the
// others when it turns out to hold connections.
func (d *decider) unfresh() {
	for key, m := range d.s.Members {
		if sight := d.seen.Instances[key]; m.Fresh && (sight.Status.Active > 0 || sight.refusing()) {
			m.Fresh = false
			d.put(key, m)
		}
	}
}

// joinsNext reports whether an instance that nobody knew belongs to a later
// release: it joins the colour that drains already, and under no former name.
func (d *decider) joinsNext(in discovery.Instance) bool {
	r := d.s.Rollout
	if r == nil || in.Colour != r.From || r.Phase != Draining && r.Phase != Soaking || r.Policy.Stagger.InPlace {
		return false
	}
	for _, m := range d.s.Members {
		if m.Addr == in.Addr || m.Drain != "" && m.Drain == in.Drain {
			return false
		}
	}
	return true
}

// former is the key of a member whose id was taken over by another instance.
func former(m Member) discovery.InstanceID {
	return discovery.InstanceID(string(m.ID) + "@" + m.Addr.String() + "/" + string(m.Colour))
}

// departedEmpty reports whether a departed member is proven to hold nothing, or
// has been away so long without anybody to ask that it is given up.
func (d *decider) departedEmpty(key discovery.InstanceID, m Member) bool {
	sight := d.seen.Instances[key]
	if m.Drain == "" && d.witnessed(m.Colour) && d.seen.Witnesses[m.Colour].At.After(m.Departed.Add(departedSettle)) {
		return true
	}
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
