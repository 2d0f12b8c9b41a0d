package state

import (
	"cmp"
	"slices"

	"github.com/sluice-proxy/sluice/discovery"
)

// registered is what an instance is to its registry: who it is does not depend on its
// neighbours. Its name here, the key of the member, is its id or, where another node's
// instance has that, id@node; it keeps the name that it was first given.
type registered struct {
	node string
	id   discovery.InstanceID
}

// Named is a fleet with the names that the members have.
func Named(s State, f discovery.Fleet) discovery.Fleet {
	if !slices.ContainsFunc(f.Instances, func(in discovery.Instance) bool { return in.Node != "" && s.Members[in.ID].Node != in.Node }) {
		return f // mostly
	}
	names := map[registered]discovery.InstanceID{}
	for key, m := range s.Members {
		if key == m.ID && m.Node != "" {
			names[registered{m.Node, discovery.ShortOf(m.ID, m.Node)}] = key
		}
	}
	taken := map[discovery.InstanceID]bool{}
	for _, in := range f.Instances {
		if name, ok := names[registered{in.Node, in.Short()}]; ok {
			taken[name] = true
		} else if in.Node == "" {
			taken[in.ID] = true
		}
	}
	renamed := map[discovery.InstanceID]discovery.InstanceID{}
	f.Instances = slices.Clone(f.Instances)
	for i := range f.Instances {
		in := &f.Instances[i]
		if in.Node == "" {
			continue
		}
		name, ok := names[registered{in.Node, in.Short()}]
		if !ok {
			name = firstName(s, *in, taken)
			taken[name] = true
		}
		renamed[in.ID] = name
		in.ID = name
	}
	slices.SortFunc(f.Instances, func(a, b discovery.Instance) int { return cmp.Compare(a.ID, b.ID) })
	if len(f.Twins) > 0 {
		f.Twins = discovery.FindTwins(f.Instances)
	}
	return f
}

// firstName is the name of an instance that no member is known to be. A member of a state
// that was stored before nodes were remembered is known by its address.
func firstName(s State, in discovery.Instance, taken map[discovery.InstanceID]bool) discovery.InstanceID {
	for _, name := range []discovery.InstanceID{in.ID, in.Short()} {
		if m, ok := s.Members[name]; ok && m.Node == "" && m.Addr == in.Addr && !taken[name] {
			return name
		}
	}
	if m, ok := s.Members[in.ID]; !taken[in.ID] && (!ok || m.Node == "") {
		return in.ID
	}
	return discovery.AtNode(in.Short(), in.Node)
}
