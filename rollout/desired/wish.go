// Package desired has the words for what should be of each service: what Envoys are to
// hold, and what each instance is to be told and how often to be asked. It decides
// nothing; rollout.Wished does.
package desired

import (
	"net/netip"
	"reflect"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// Wishes is the whole map of what should be, for every service. The drain side
// and the Envoy builder read the same map. Never changed once published.
type Wishes map[discovery.Service]Wish

// Wish is what should be of one service. Derived from the state by rollout.Wished.
type Wish struct {
	// Weights are the colours' shares of new connections; they sum to Whole.
	Weights map[discovery.Colour]units.Share
	// Endpoints holds every member, sorted by address within a colour.
	Endpoints map[discovery.Colour][]Endpoint
	// Orders is what each member with a drain endpoint is told; a member that is
	// missing here is told nothing, only asked.
	Orders map[discovery.InstanceID]Instruction
	// Hooks is for which members the policy's hook has to be called.
	Hooks map[discovery.InstanceID]HookOrder
	// Limits is how many connections the open instances of a colour admit in all;
	// a colour that is missing has no limit.
	Limits map[discovery.Colour]int
	// Proxies is how many proxies share limits and rates; at least 1.
	Proxies int
	// Unsettled says why it is not known where new connections should go; empty when it
	// is. Proxies keep then what they have; there are no weights, endpoints or orders.
	Unsettled string
	// Retired: no new connections at all; Gone: also proven empty, nothing of it
	// is published any more.
	Retired, Gone bool
}

// Equal reports whether two wishes say the same. It costs next to nothing where one is a
// copy of the other.
func (w Wish) Equal(other Wish) bool {
	return w.copied(other) || reflect.DeepEqual(w, other)
}

// copied reports whether the wishes are made of the same maps.
func (w Wish) copied(other Wish) bool {
	return sameMap(w.Weights, other.Weights) && sameMap(w.Endpoints, other.Endpoints) && sameMap(w.Orders, other.Orders) &&
		sameMap(w.Hooks, other.Hooks) && sameMap(w.Limits, other.Limits) && w.Proxies == other.Proxies &&
		w.Unsettled == other.Unsettled && w.Retired == other.Retired && w.Gone == other.Gone
}

func sameMap[K comparable, V any](a, b map[K]V) bool {
	return reflect.ValueOf(a).UnsafePointer() == reflect.ValueOf(b).UnsafePointer()
}

// Endpoint is one address that Envoy knows. Draining endpoints keep their
// connections and get no new ones.
type Endpoint struct {
	ID       discovery.InstanceID
	Addr     netip.AddrPort
	Draining bool
}

// HookOrder is a level: while it is wished, the hook has to have been called for
// this attempt. A call that was made already is not made again.
type HookOrder struct {
	Service  discovery.Service
	Instance discovery.InstanceID
	Colour   discovery.Colour
	Addr     netip.AddrPort
	Rollout  string
	Attempt  int
	Hook     policy.Hook
}
