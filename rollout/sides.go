package rollout

import (
	"maps"
	"slices"

	"github.com/sluice-proxy/sluice/discovery"
)

// old reports whether the rollout has the member let its connections go.
func (r *Rollout) old(m Member) bool {
	return !m.Fresh && (m.Colour == r.From || m.Outgoing)
}

// takes reports whether the rollout sends the member new connections.
func (r *Rollout) takes(m Member) bool {
	return m.Colour == r.To && !m.Outgoing
}

// drains reports whether the member gets no new connections because it drains.
func (s State) drains(m Member) bool {
	r := s.Rollout
	switch {
	case s.Retired || m.Outgoing:
		return true
	case r == nil || !r.old(m) || r.Phase != Draining && r.Phase != Soaking:
		return false
	}
	return !r.Policy.Stagger.InPlace || m.Turn > 0
}

// olds lists the members that let their connections go, in a stable order.
func (d *decider) olds() []discovery.InstanceID {
	return d.members(func(_ discovery.InstanceID, m Member) bool { return d.s.Rollout.old(m) })
}

// news lists the members that take over, in a stable order.
func (d *decider) news() []discovery.InstanceID {
	return d.members(func(_ discovery.InstanceID, m Member) bool { return d.s.Rollout.takes(m) })
}

// side lists the members of a colour in a stable order.
func (d *decider) side(c discovery.Colour) []discovery.InstanceID {
	return d.members(func(_ discovery.InstanceID, m Member) bool { return m.Colour == c })
}

// open lists the healthy instances of a colour that take new connections; the
// list is not to be changed.
func (d *decider) open(c discovery.Colour) []discovery.InstanceID {
	if keys, ok := d.found.open[c]; ok {
		return keys
	}
	keys := d.members(func(key discovery.InstanceID, m Member) bool {
		return m.Colour == c && !d.s.drains(m) && d.serves(key, m) && !d.seen.Instances[key].refusing()
	})
	if d.found.open == nil {
		d.found.open = map[discovery.Colour][]discovery.InstanceID{}
	}
	d.found.open[c] = keys
	return keys
}

// all lists every member in a stable order; the list is not to be changed.
func (d *decider) all() []discovery.InstanceID {
	if d.sorted == nil {
		d.sorted = slices.Sorted(maps.Keys(d.s.Members))
	}
	return d.sorted
}

func (d *decider) members(which func(discovery.InstanceID, Member) bool) []discovery.InstanceID {
	var keys []discovery.InstanceID
	for _, key := range d.all() {
		if which(key, d.s.Members[key]) {
			keys = append(keys, key)
		}
	}
	return keys
}

// load is what the proxies report of the member.
func (d *decider) load(m Member) (Load, bool) {
	if len(d.seen.Loads) == 0 {
		return Load{}, false
	}
	load, ok := d.seen.Loads[Place{m.Colour, m.Addr}]
	return load, ok
}

// holds is how many connections the member holds, by its own word or, where it
// has no drain endpoint, by the proxies'. known is false when nobody says; 0 is
// proof only where the member itself or the witness of its colour says so.
func (d *decider) holds(key discovery.InstanceID, m Member) (n int, known bool) {
	if m.Drain != "" {
		sight := d.seen.Instances[key]
		return sight.Status.Active, !sight.At.IsZero()
	}
	if d.witnessed(m.Colour) {
		return 0, true
	}
	load, ok := d.load(m)
	return load.Held, ok && load.Held > 0
}

// witnessed reports whether every proxy that may hold a connection of the colour
// says that it holds none.
func (d *decider) witnessed(c discovery.Colour) bool {
	for _, node := range d.s.Proxies {
		if !slices.ContainsFunc(d.seen.Proxies, func(p Proxy) bool { return p.Node == node }) {
			return false // it may hold some and was not seen since this process started
		}
	}
	w, ok := d.seen.Witnesses[c]
	return ok && len(w.Missing) == 0 && w.Active == 0 && d.now.Sub(w.At) <= witnessOld
}
