package rollout

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// Wishes is the whole map of what should be, for every service. The drain side
// and the Envoy builder read the same map. Never changed once published.
type Wishes map[discovery.Service]Wish

// Wish is what should be of one service. Derived from State by Wished.
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

// HookOrder is a level: while it is wished, the hook has to have been called for
// this attempt. A call that was made already is not made again.
type HookOrder struct {
	Service  discovery.Service
	Instance discovery.InstanceID
	Colour   discovery.Colour
	Addr     netip.AddrPort
	Rollout  string
	Attempt  int
	Hook     Hook
}

// Instruction is an Order to drain, or a Release to serve; one of the two is set.
type Instruction struct {
	Drain *drain.Order
	Serve *drain.Release
}

// Wished derives from the state what should be. What is seen adds only which
// instances can take new connections now. Pure, and the same for the same
// arguments: saying it again after a restart is harmless.
func Wished(s State, seen Seen) Wish {
	d := decider{s: s, seen: seen}
	w := Wish{
		Weights:   s.Weights(),
		Endpoints: map[discovery.Colour][]Endpoint{},
		Orders:    map[discovery.InstanceID]Instruction{},
		Retired:   s.Retired,
		Gone:      s.Retired && len(s.Members) == 0,
	}
	w.Limits, w.Proxies, w.Hooks = d.limits(), d.proxies(), d.hookOrders()
	taken := map[string]bool{}
	for _, key := range d.told() {
		m := s.Members[key]
		if m.Drain == "" || taken[m.Drain] {
			continue
		}
		taken[m.Drain] = true
		if in, ok := instruct(s, m); ok {
			w.Orders[key] = in
		}
	}
	full := d.brimful()
	for _, c := range discovery.Colours {
		w.Endpoints[c] = []Endpoint{}
		for _, key := range d.side(c) {
			m := s.Members[key]
			closed := !d.serves(key, m) || seen.Instances[key].refusing() || s.drains(m) || full[key]
			w.Endpoints[c] = append(w.Endpoints[c], Endpoint{ID: key, Addr: m.Addr, Draining: closed})
		}
		slices.SortFunc(w.Endpoints[c], func(a, b Endpoint) int {
			return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.ID, b.ID))
		})
		w.Endpoints[c] = slices.CompactFunc(w.Endpoints[c], func(a, b Endpoint) bool { return a.Addr == b.Addr })
	}
	return w
}

// told lists the members in the order in which they may claim a drain endpoint:
// one that is in discovery before a departed one that had the same.
func (d *decider) told() []discovery.InstanceID {
	gone := d.members(func(_ discovery.InstanceID, m Member) bool { return !m.Departed.IsZero() })
	slices.SortStableFunc(gone, func(a, b discovery.InstanceID) int {
		return d.s.Members[a].Departed.Compare(d.s.Members[b].Departed)
	})
	return append(d.members(func(_ discovery.InstanceID, m Member) bool { return m.Departed.IsZero() }), gone...)
}

// Weights are the colours' shares of new connections; they sum to Whole.
func (s State) Weights() map[discovery.Colour]units.Share {
	r := s.Rollout
	switch {
	case r == nil:
		return map[discovery.Colour]units.Share{s.Live: units.Whole, s.Live.Other(): 0}
	case r.Phase == Opening || r.Phase == Shifting:
		return map[discovery.Colour]units.Share{r.To: r.Weight, r.From: units.Whole - r.Weight}
	case r.Spill && r.Phase == Draining:
		return map[discovery.Colour]units.Share{r.To: 0, r.From: units.Whole}
	default:
		return map[discovery.Colour]units.Share{r.To: units.Whole, r.From: 0}
	}
}

// instruct says what a member is told, if anything. Steady, the side that is not
// live is told nothing: what was drained stays so by itself, and a new release
// can be tried there before its promotion.
func instruct(s State, m Member) (Instruction, bool) {
	r := s.Rollout
	switch {
	case s.Epoch == 0 || s.Retired:
		return Instruction{}, false
	case r == nil:
		if m.Colour != s.Live || m.Outgoing || len(s.History) == 0 {
			return Instruction{}, false
		}
		return Instruction{Serve: &drain.Release{Rollout: s.History[len(s.History)-1].ID, Epoch: s.Epoch}}, true
	case r.takes(m):
		return Instruction{Serve: &drain.Release{Rollout: r.ID, Epoch: s.Epoch}}, true
	case s.drains(m):
		return Instruction{Drain: &drain.Order{
			Rollout: r.ID, Epoch: s.Epoch, Step: r.Step, Ceiling: m.Ceiling,
			OverMS: r.Policy.Funnel.Every.D().Milliseconds(), StartMS: m.Start.D().Milliseconds(),
			Pick: r.Policy.Order,
		}}, true
	}
	return Instruction{}, false
}
