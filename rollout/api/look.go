package api

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// LookAll says every service in the API's words, sorted by name.
func LookAll(views map[discovery.Service]rollout.View, now time.Time) World {
	w := World{At: now, Services: []Status{}}
	for _, name := range slices.Sorted(maps.Keys(views)) {
		w.Services = append(w.Services, Look(views[name], now))
	}
	return w
}

// Look says one service in the API's words. It is pure and shares no memory with
// the view that a reader could change.
func Look(v rollout.View, now time.Time) Status {
	v.Seen.Fleet = state.Named(v.State, v.Seen.Fleet)
	s := Status{
		Service:   v.State.Service,
		Live:      v.State.Live,
		Phase:     v.State.Phase(),
		Retired:   v.State.Retired,
		Reason:    v.Reason,
		Policy:    v.Policy,
		LeftOut:   append([]discovery.LeftOut{}, v.Seen.Fleet.LeftOut...),
		Discovery: Discovery{Error: cmp.Or(v.Seen.Fleet.Err, v.Seen.Fleet.Unread), Suspect: v.Seen.Fleet.Suspect},
		Proxies:   lookProxies(v.Seen),
	}
	if v.State.Unsettled {
		s.Live = ""
	}
	outlook := rollout.Foresee(v.State, v.Seen, now)
	s.Notes = rollout.Notes(v.State, v.Seen, now)
	doubles := rollout.Doubles(v.State, v.Seen, now)
	s.Instances = lookInstances(v, outlook, doubles)
	rooms := rollout.Rooms(v.State, v.Seen, v.Policy, now)
	for _, c := range discovery.Colours {
		col := lookColour(v, c, s.Instances, doubles)
		if room, known := rooms[c]; known {
			col.Room = &room
		}
		s.Colours = append(s.Colours, col)
	}
	if n := len(v.State.History); n > 0 {
		last := v.State.History[n-1]
		last.Events = nil
		s.Last = &last
	}
	if r := v.State.Rollout; r != nil {
		s.Paused = r.Paused
		if r.Aborting {
			s.Phase = Aborting
		}
		s.Rollout = lookRollout(v, s, outlook, now)
	}
	return s
}

func lookProxies(seen observed.Seen) Proxies {
	p := Proxies{Nacks: []ProxyNack{}, Unpublished: seen.Unpublished}
	for _, x := range seen.Proxies {
		if !x.Routes {
			continue
		}
		if x.Connected {
			p.Connected++
		}
		if x.Confirmed {
			p.Confirmed++
		}
		if x.Nack != "" {
			p.Nacks = append(p.Nacks, ProxyNack{Node: x.Node, Message: x.Nack})
		}
	}
	return p
}

// lookInstances joins what is remembered, what discovery lists and what the
// drain endpoints said.
func lookInstances(v rollout.View, outlook rollout.Outlook, doubles map[discovery.InstanceID]discovery.InstanceID) []Instance {
	all := []Instance{}
	listed := map[discovery.InstanceID]bool{}
	for key, m := range v.State.Members {
		i := Instance{ID: m.ID, Node: m.Node, Colour: m.Colour, Addr: m.Addr, Drain: m.Drain, Departed: !m.Departed.IsZero(), Ceiling: clone(m.Ceiling)}
		i.Batch, i.Old = outlook.Turns[key]
		if at := slices.IndexFunc(v.Seen.Fleet.Instances, func(d discovery.Instance) bool {
			return d.ID == m.ID && d.Addr == m.Addr && m.Departed.IsZero()
		}); at >= 0 {
			d := v.Seen.Fleet.Instances[at]
			listed[d.ID] = true
			i.Health, i.Capacity, i.Version = d.Health, d.Capacity, d.Version
		}
		if seen, ok := v.Seen.Instances[key]; ok {
			i.Error = seen.Err
			i.Held = held(m, seen, i.Health)
			if !seen.At.IsZero() {
				st := seen.Status
				i.State, i.Heard = string(st.State), &seen.At
				i.Requests, i.Lingering = st.Requests, st.Lingering
				i.Asked, i.Left, i.Overstayed = st.Asked, st.Left, st.Overstayed
				i.Evicted, i.Accepted, i.Returned = new(st.Evicted), new(st.Accepted), clone(st.Returned)
				if m.Counted {
					i.EvictedByRollout = st.Evicted - min(st.Evicted, m.Evicted)
				}
			}
		}
		if i.Reported = reported(v.Seen, m.Colour, m.Addr); i.Reported != nil && m.Drain == "" {
			i.Held = new(i.Reported.Held)
		}
		if other, ok := doubles[key]; ok {
			i.CountedWith, i.Held, i.Reported = other, nil, nil
		}
		if x, ok := v.Differences[key]; ok {
			i.Differs = new(Difference(x))
		}
		all = append(all, i)
	}
	for _, d := range v.Seen.Fleet.Instances {
		if !listed[d.ID] {
			all = append(all, Instance{ID: d.ID, Node: d.Node, Colour: d.Colour, Addr: d.Addr, Drain: d.Drain, Health: d.Health, Capacity: d.Capacity, Version: d.Version,
				Reported: reported(v.Seen, d.Colour, d.Addr)})
		}
	}
	slices.SortFunc(all, func(a, b Instance) int {
		return cmp.Or(cmp.Compare(a.Colour, b.Colour), cmp.Compare(a.ID, b.ID), a.Addr.Compare(b.Addr))
	})
	return all
}

// reported is what the proxies report of one endpoint.
func reported(seen observed.Seen, c discovery.Colour, addr netip.AddrPort) *Reported {
	l, ok := seen.Loads[observed.Place{Colour: c, Addr: addr}]
	if !ok {
		return nil
	}
	return &Reported{Held: l.Held, PerSecond: l.PerSecond, Accepted: l.Accepted, Refused: l.Refused, At: l.At, Silent: slices.Clone(l.Silent)}
}

// held is what the member holds now; nil when it cannot be known. A process that
// no longer exists (its endpoint refuses and discovery does not call it healthy)
// holds nothing, whatever it said last.
func held(m state.Member, s observed.Sighting, health discovery.Health) *int {
	switch {
	case m.Drain == "" || s.At.IsZero():
		return nil
	case s.Refused && !health.Serves():
		return new(0)
	}
	return new(s.Status.Active)
}

func lookColour(v rollout.View, c discovery.Colour, instances []Instance, doubles map[discovery.InstanceID]discovery.InstanceID) Colour {
	out := Colour{Colour: c, Weight: v.Wish.Weights[c]}
	for _, i := range instances {
		if i.Colour != c || i.CountedWith != "" {
			continue
		}
		out.Instances++
		if i.Health.Serves() {
			out.Healthy++
		}
		out.Active = plus(out.Active, i.Held)
	}
	if out.Instances == 0 {
		out.Active = new(0)
	}
	for key, m := range v.State.Members {
		if doubles[key] != "" {
			continue
		}
		s := v.Seen.Instances[key]
		if m.Colour == c && !s.At.IsZero() && s.Err == "" {
			out.NewPerSecond = plus(out.NewPerSecond, &s.PerSecond)
		}
		if l, ok := v.Seen.Loads[observed.Place{Colour: c, Addr: m.Addr}]; ok && m.Colour == c && m.Drain == "" {
			out.NewPerSecond = plus(out.NewPerSecond, &l.PerSecond)
		}
	}
	if w, ok := v.Seen.Witnesses[c]; ok {
		out.Unreported, out.ConnectP99 = slices.Clone(w.Missing), units.Duration(w.ConnectP99)
		if !w.At.IsZero() {
			out.Reported = new(w.Active)
		}
	}
	return out
}

func plus[T int | float64](sum, more *T) *T {
	if more == nil {
		return sum
	}
	if sum == nil {
		return new(*more)
	}
	return new(*sum + *more)
}

func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	return new(*p)
}
