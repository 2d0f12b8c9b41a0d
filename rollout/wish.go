package rollout

import (
	"net/netip"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/drain"
)

// Wishes is the whole map of what should be, for every service. The drain side
// and the Envoy builder read the same map. Never changed once published.
type Wishes map[discovery.Service]Wish

// Wish is what should be of one service. Derived from State by Wished.
type Wish struct {
	// Weights are the colours' shares of new connections; they sum to Whole.
	Weights map[discovery.Colour]Share
	// Endpoints holds every member, sorted by address within a colour.
	Endpoints map[discovery.Colour][]Endpoint
	// Orders is what each member with a drain endpoint is told; a member that is
	// missing here is told nothing, only asked.
	Orders map[discovery.InstanceID]Instruction
	// Retired: no new connections at all; Gone: also proven empty, nothing of it
	// is published any more.
	Retired, Gone bool
}

// Endpoint is one address that Envoy knows. Draining endpoints keep their
// connections and get no new ones.
type Endpoint struct {
	ID       discovery.InstanceID
	Addr     netip.AddrPort
	Draining bool
}

// Instruction is an Order to drain, or a Release to serve; one of the two is set.
type Instruction struct {
	Drain *drain.Order
	Serve *drain.Release
}
