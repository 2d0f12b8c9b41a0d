package discovery

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// Twins is several registrations that have one address or one drain endpoint: they
// name one process, or one of them names a process that is another's.
type Twins struct {
	// Addr is their address; else Drain is their drain endpoint.
	Addr  netip.AddrPort `json:"addr,omitzero"`
	Drain string         `json:"drain,omitempty"`
	// IDs are two or more, sorted.
	IDs []InstanceID `json:"ids"`
}

// What they share, in words.
func (t Twins) String() string {
	if t.Drain != "" {
		return "the drain endpoint " + t.Drain
	}
	return fmt.Sprintf("the address %s", t.Addr)
}

// FindTwins lists the twins among instances that are sorted by ID: those of an address
// by address, then those of a drain endpoint.
func FindTwins(all []Instance) []Twins {
	// The first of each is remembered without a list: mostly there is no second.
	byAddr, byDrain := make(map[netip.AddrPort]InstanceID, len(all)), make(map[string]InstanceID, len(all))
	addrs, drains := map[netip.AddrPort][]InstanceID{}, map[string][]InstanceID{}
	for _, in := range all {
		add(byAddr, addrs, in.Addr, in.ID)
		if in.Drain != "" {
			add(byDrain, drains, in.Drain, in.ID)
		}
	}
	var out []Twins
	for addr, ids := range addrs {
		out = append(out, Twins{Addr: addr, IDs: ids})
	}
	for drain, ids := range drains {
		out = append(out, Twins{Drain: drain, IDs: ids})
	}
	slices.SortFunc(out, func(a, b Twins) int { return cmp.Or(cmp.Compare(a.Drain, b.Drain), a.Addr.Compare(b.Addr)) })
	return out
}

func add[K comparable](first map[K]InstanceID, more map[K][]InstanceID, key K, id InstanceID) {
	switch before, twice := first[key]; {
	case !twice:
		first[key] = id
	case more[key] == nil:
		more[key] = []InstanceID{before, id}
	default:
		more[key] = append(more[key], id)
	}
}

func equalTwins(a, b Twins) bool {
	return a.Addr == b.Addr && a.Drain == b.Drain && slices.Equal(a.IDs, b.IDs)
}
