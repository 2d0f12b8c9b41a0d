package rollout

import (
	"cmp"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
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

// Instruction is an Order to drain, or a Release to serve; one of the two is set.
type Instruction struct {
	Drain *contract.Order
	Serve *contract.Release
}

// Epoch is that of the order or the release; 0 without one.
func (i Instruction) Epoch() uint64 {
	switch {
	case i.Drain != nil:
		return i.Drain.Epoch
	case i.Serve != nil:
		return i.Serve.Epoch
	}
	return 0
}

// Same reports whether two instructions say the same.
func (i Instruction) Same(other Instruction) bool {
	switch {
	case i.Drain != nil && other.Drain != nil:
		return i.Drain.Rollout == other.Drain.Rollout && i.Drain.Epoch == other.Drain.Epoch && i.Drain.Step == other.Drain.Step
	case i.Serve != nil && other.Serve != nil:
		return *i.Serve == *other.Serve
	}
	return i == other
}

// Wished derives from the state what should be. What is seen adds only which
// instances can take new connections now. Pure, and the same for the same
// arguments: saying it again after a restart is harmless.
func Wished(s state.State, seen observed.Seen, now time.Time) Wish {
	made := newSituation(s, seen, now)
	if s.Unsettled {
		return Wish{
			Unsettled: fmt.Sprintf("no state is stored of %s, and its live colour is not proven yet", s.Service),
			Proxies:   made.proxyCount(), Retired: s.Retired, Gone: s.Retired && len(s.Members) == 0,
		}
	}
	w := Wish{
		Weights:   s.Weights(),
		Endpoints: map[discovery.Colour][]Endpoint{},
		Orders:    made.orders(),
		Hooks:     made.hookOrders(),
		Limits:    made.limits(),
		Proxies:   made.proxyCount(),
		Retired:   s.Retired,
		Gone:      s.Retired && len(s.Members) == 0,
	}
	for _, c := range discovery.Colours {
		w.Endpoints[c] = made.endpoints(c)
	}
	made.closeFull(w.Endpoints)
	return w
}

// orders is what each member with a drain endpoint is told. Where several have one
// endpoint, a member that is in discovery speaks for it before a departed one.
func (s *situation) orders() map[discovery.InstanceID]Instruction {
	out := map[discovery.InstanceID]Instruction{}
	claimed := map[string]bool{}
	for _, f := range s.claimOrder() {
		key, m := f.key, s.state.Members[f.key]
		if !f.endpoint || f.twin.second || f.twin.rival || f.twin.alias || claimed[m.Drain] {
			continue
		}
		claimed[m.Drain] = true
		if in, ok := instruct(s.state, m); ok && (in.Drain == nil || !released(s, f)) {
			out[key] = in
		}
	}
	return out
}

// claimOrder lists the members in the order in which they may claim a drain endpoint:
// those in discovery, then the departed ones, the earliest first.
func (s *situation) claimOrder() []*fact {
	all := s.members().all
	order, gone := make([]*fact, 0, len(all)), []*fact(nil)
	for i := range all {
		if f := &all[i]; f.departed.IsZero() {
			order = append(order, f)
		} else {
			gone = append(gone, f)
		}
	}
	slices.SortStableFunc(gone, func(a, b *fact) int { return a.departed.Compare(b.departed) })
	return append(order, gone...)
}

// endpoints lists the addresses of a colour, sorted. Of several members at one address
// one that is open speaks for it.
func (s *situation) endpoints(c discovery.Colour) []Endpoint {
	out := []Endpoint{}
	kept := s.keptOpen(c)
	for _, f := range s.members().colour[c] {
		closed := !f.serves || f.refusing || f.shut || f.drains || f.doubtful()
		if slices.Contains(kept, f) {
			closed = false
		}
		out = append(out, Endpoint{ID: f.key, Addr: s.state.Members[f.key].Addr, Draining: closed})
	}
	slices.SortFunc(out, func(a, b Endpoint) int {
		return cmp.Or(a.Addr.Compare(b.Addr), openFirst(a, b), cmp.Compare(a.ID, b.ID))
	})
	return slices.CompactFunc(out, func(a, b Endpoint) bool { return a.Addr == b.Addr })
}

func openFirst(a, b Endpoint) int {
	switch {
	case a.Draining == b.Draining:
		return 0
	case b.Draining:
		return -1
	}
	return 1
}

// limits is how many connections the instances of each colour admit in all. A
// colour has a limit when every instance that takes new connections has one, and
// the limits of those that drain beside them count, too: a proxy cannot tell
// whose connections it counts.
func (s *situation) limits() map[discovery.Colour]int {
	out := map[discovery.Colour]int{}
	limited := false
	for _, sight := range s.seen.Instances {
		limited = limited || sight.Status.Limit > 0
	}
	if !limited {
		return out
	}
	for _, c := range discovery.Colours {
		total := 0
		bounded := len(s.members().open[c]) > 0
		for _, f := range s.members().colour[c] {
			if limit := s.seen.Instances[f.key].Status.Limit; !f.twin.second && (f.drains || f.serves) {
				total, bounded = total+limit, bounded && limit > 0
			}
		}
		if bounded {
			out[c] = total
		}
	}
	return out
}

// hookOrders is for which members the hook has to be called.
func (s *situation) hookOrders() map[discovery.InstanceID]HookOrder {
	r := s.state.Rollout
	if r == nil || r.Policy.Hook == nil {
		return nil
	}
	out := map[discovery.InstanceID]HookOrder{}
	for key, m := range s.state.Members {
		if m.Hooked > 0 && r.Old(m) {
			out[key] = HookOrder{
				Service: s.state.Service, Instance: m.ID, Colour: m.Colour, Addr: m.Addr,
				Rollout: r.ID, Attempt: m.Hooked, Hook: *r.Policy.Hook,
			}
		}
	}
	return out
}

// proxyCount is how many proxies share limits and rates: those that route here and are connected,
// and after a restart those that are known and were not seen since.
func (s *situation) proxyCount() int {
	n := 0
	for _, p := range s.seen.Proxies {
		if p.Connected && p.Routes {
			n++
		}
	}
	for _, node := range s.state.Proxies {
		if _, seen := s.proxy(node); !seen {
			n++
		}
	}
	return max(1, n)
}

// instruct says what a member is told, if anything. Steady, the side that is not
// live is told nothing: what was drained stays so by itself, and a new release
// can be tried there before its promotion.
func instruct(s state.State, m state.Member) (Instruction, bool) {
	r := s.Rollout
	switch {
	case s.Epoch == 0 || s.Retired:
		return Instruction{}, false
	case r == nil:
		if m.Colour != s.Live || m.Outgoing || len(s.History) == 0 {
			return Instruction{}, false
		}
		return Instruction{Serve: &contract.Release{Rollout: s.History[len(s.History)-1].ID, Epoch: s.Epoch}}, true
	case r.Takes(m):
		return Instruction{Serve: &contract.Release{Rollout: r.ID, Epoch: s.Epoch}}, true
	case s.Drains(m):
		notice := m.Notice.D()
		if m.Ceiling == nil {
			notice = 0 // nobody is asked by an order that holds, and the notices stand still
		}
		return Instruction{Drain: &contract.Order{
			Rollout: r.ID, Epoch: s.Epoch, Step: r.Step, Ceiling: m.Ceiling,
			OverMS: r.Policy.Funnel.Every.D().Milliseconds(), StartMS: m.Start.D().Milliseconds(),
			Pick: r.Policy.Order, NoticeMS: notice.Milliseconds(),
		}}, true
	}
	return Instruction{}, false
}

// View is one service as the controller sees it at one moment. Never changed
// once published.
type View struct {
	State  state.State
	Seen   observed.Seen
	Wish   Wish
	Reason Reason
	// Policy is the configured one, which the next promotion starts from.
	Policy policy.Policy
	// Differences is what control.Differ found, by member; the controller leaves it empty.
	Differences map[discovery.InstanceID]Difference
}

// Difference is a lasting one between what an instance says that it holds and
// what the proxies report of it, as of clients that reach it past the proxies.
type Difference struct {
	Said, Reported int
	// Since is when it was first seen.
	Since time.Time
}

// ShownBy reports whether an instance of this status follows the instruction. A
// release is needed only by an instance that an order closed. One that closed its
// gate by itself is stopping.
func (i Instruction) ShownBy(s contract.Status) bool {
	switch {
	case i.Drain != nil:
		return s.Rollout == i.Drain.Rollout && s.State != contract.Serving &&
			cmp.Or(cmp.Compare(s.Epoch, i.Drain.Epoch), cmp.Compare(s.Step, i.Drain.Step)) >= 0
	case i.Serve != nil:
		return s.State == contract.Serving || s.Rollout == ""
	}
	return true
}
