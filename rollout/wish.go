package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// Wished derives from the state what should be. What is seen adds only which
// instances can take new connections now. Pure, and the same for the same
// arguments: saying it again after a restart is harmless.
func Wished(s state.State, seen observed.Seen, now time.Time) desired.Wish {
	made := newSituation(s, seen, now)
	if s.Unsettled {
		return desired.Wish{
			Unsettled: fmt.Sprintf("no state is stored of %s, and its live colour is not proven yet", s.Service),
			Proxies:   made.proxyCount(), Retired: s.Retired, Gone: s.Retired && len(s.Members) == 0,
		}
	}
	w := desired.Wish{
		Weights:   s.Weights(),
		Endpoints: map[discovery.Colour][]desired.Endpoint{},
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
func (s *situation) orders() map[discovery.InstanceID]desired.Instruction {
	out := map[discovery.InstanceID]desired.Instruction{}
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
func (s *situation) endpoints(c discovery.Colour) []desired.Endpoint {
	out := []desired.Endpoint{}
	kept := s.keptOpen(c)
	for _, f := range s.members().colour[c] {
		closed := !f.serves || f.refusing || f.shut || f.drains || f.doubtful()
		if slices.Contains(kept, f) {
			closed = false
		}
		out = append(out, desired.Endpoint{ID: f.key, Addr: s.state.Members[f.key].Addr, Draining: closed})
	}
	slices.SortFunc(out, func(a, b desired.Endpoint) int {
		return cmp.Or(a.Addr.Compare(b.Addr), openFirst(a, b), cmp.Compare(a.ID, b.ID))
	})
	return slices.CompactFunc(out, func(a, b desired.Endpoint) bool { return a.Addr == b.Addr })
}

func openFirst(a, b desired.Endpoint) int {
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
func (s *situation) hookOrders() map[discovery.InstanceID]desired.HookOrder {
	r := s.state.Rollout
	if r == nil || r.Policy.Hook == nil {
		return nil
	}
	out := map[discovery.InstanceID]desired.HookOrder{}
	for key, m := range s.state.Members {
		if m.Hooked > 0 && r.Old(m) {
			out[key] = desired.HookOrder{
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
func instruct(s state.State, m state.Member) (desired.Instruction, bool) {
	r := s.Rollout
	switch {
	case s.Epoch == 0 || s.Retired:
		return desired.Instruction{}, false
	case r == nil:
		if m.Colour != s.Live || m.Outgoing || len(s.History) == 0 {
			return desired.Instruction{}, false
		}
		return desired.Instruction{Serve: &contract.Release{Rollout: s.History[len(s.History)-1].ID, Epoch: s.Epoch}}, true
	case r.Takes(m):
		return desired.Instruction{Serve: &contract.Release{Rollout: r.ID, Epoch: s.Epoch}}, true
	case s.Drains(m):
		notice := m.Notice.D()
		if m.Ceiling == nil {
			notice = 0 // nobody is asked by an order that holds, and the notices stand still
		}
		return desired.Instruction{Drain: &contract.Order{
			Rollout: r.ID, Epoch: s.Epoch, Step: r.Step, Ceiling: m.Ceiling,
			OverMS: r.Policy.Funnel.Every.D().Milliseconds(), StartMS: m.Start.D().Milliseconds(),
			Pick: r.Policy.Order, NoticeMS: notice.Milliseconds(),
		}}, true
	}
	return desired.Instruction{}, false
}

// View is one service as the controller sees it at one moment. Never changed
// once published.
type View struct {
	State  state.State
	Seen   observed.Seen
	Wish   desired.Wish
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
