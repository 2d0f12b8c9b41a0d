package drain

import (
	"fmt"
	"net/netip"
	"slices"
)

// from is whose connections a level covers. The zero value is everybody's.
type from struct {
	names []string // sorted; nil: everybody
	addrs []netip.Addr
}

// newFrom is of an order's words, which passed checkFrom.
func newFrom(names []string) from {
	f := from{names: slices.Compact(slices.Sorted(slices.Values(names)))}
	for _, name := range f.names {
		if addr, err := netip.ParseAddr(name); err == nil {
			f.addrs = append(f.addrs, plain(addr))
		}
	}
	return f
}

func (f from) everybody() bool      { return f.names == nil }
func (f from) same(other from) bool { return slices.Equal(f.names, other.names) }

// covers: who does not say through which node it came is known by its address.
func (f from) covers(at origin) bool {
	switch {
	case f.everybody():
		return true
	case at.node != "":
		_, found := slices.BinarySearch(f.names, at.node)
		return found
	}
	return at.addr.IsValid() && slices.Contains(f.addrs, at.addr)
}

// What an order can name at most.
const (
	MaxFrom = 256 // nodes
	MaxName = 256 // bytes of a node's name, or a level's
)

func checkFrom(names []string) error {
	switch {
	case names == nil:
		return nil
	case len(names) == 0:
		return fmt.Errorf("from is empty; name the nodes, or leave it out for every connection")
	case len(names) > MaxFrom:
		return fmt.Errorf("from has %d nodes; it must have at most %d", len(names), MaxFrom)
	}
	for _, name := range names {
		if name == "" || len(name) > MaxName {
			return fmt.Errorf("from has a node of %d bytes; a name has 1 to %d", len(name), MaxName)
		}
	}
	return nil
}
