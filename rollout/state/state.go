// Package state has the words for what is remembered of one service, what always holds of
// them, and how they are stored. What is remembered next is decided in package rollout.
package state

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// Format is the version of the stored state. A state of a newer format stops
// the start; it is never overwritten.
const Format = 1

// Phase is where a rollout is. Paused and Aborting are flags beside it.
type Phase string

const (
	// Steady: no rollout; every new connection goes to the live colour.
	Steady Phase = "steady"
	// Opening: the instances of the colour that shall get new connections are
	// told to serve, and every proxy has their endpoints open.
	Opening Phase = "opening"
	// Shifting: the canary share goes to the target, for the policy's soak.
	Shifting Phase = "shifting"
	// Confirming: all new connections go to the target; every known proxy has
	// to acknowledge before anything is closed.
	Confirming Phase = "confirming"
	// Draining: the old instances refuse new connections and let the old ones go.
	Draining Phase = "draining"
	// Soaking: the old side is empty; the last evicted clients may come back.
	Soaking Phase = "soaking"
)

// State is all that is remembered of one service. It is stored BEFORE anyone can
// see its effect, and every effect is derived from it, so that acting on it
// twice is harmless. It is a value: what a turn changes of it is the turn's own copy,
// and its maps, lists and what it points to are shared and never changed in place.
type State struct {
	Format  int               `json:"format"`
	Service discovery.Service `json:"service"`
	// Live gets new connections when no rollout says otherwise.
	Live discovery.Colour `json:"live"`
	// Epoch rises with each promotion, abort and release; it fences orders.
	Epoch uint64 `json:"epoch"`
	// Members is every instance that may hold connections, with what it was
	// told: those in discovery and those that left it but are not proven empty.
	Members map[discovery.InstanceID]Member `json:"members"`
	// Proxies are the node ids that a switch has to be confirmed by, sorted.
	Proxies []string `json:"proxies,omitempty"`
	// Machines is where each of Proxies was connected from last; one that is missing is
	// not known. Invariant: it has no others.
	Machines map[string]netip.Addr `json:"machines,omitempty"`
	// Rollout is nil while steady.
	Rollout *Rollout `json:"rollout,omitempty"`
	// History is the finished rollouts, oldest first.
	History []Record `json:"history,omitempty"`
	// Retired: the service left the configuration; it gets no new connections
	// and is forgotten once it is proven empty.
	Retired bool `json:"retired,omitempty"`
	// Unsettled: nothing was stored, and which colour is live is not proven yet; Live is
	// then only what is configured, and nothing of the service is published. Such a state
	// is never stored. Invariant: there is no rollout then.
	Unsettled bool `json:"-"`
}

// New is the state of a service that was never seen before: steady on live.
func New(service discovery.Service, live discovery.Colour) State {
	return State{Format: Format, Service: service, Live: live, Members: map[discovery.InstanceID]Member{}}
}

// Clone returns a copy whose members, proxies, history and rollout may be replaced
// without changing s. The values in them are shared: they are never changed in place.
func (s State) Clone() State {
	s.Members = maps.Clone(s.Members)
	if s.Members == nil {
		s.Members = map[discovery.InstanceID]Member{}
	}
	s.Proxies, s.Machines = slices.Clone(s.Proxies), maps.Clone(s.Machines)
	s.History = slices.Clone(s.History)
	if s.Rollout != nil {
		s.Rollout = new(*s.Rollout)
		s.Rollout.Events, s.Rollout.LeftBehind = slices.Clone(s.Rollout.Events), slices.Clone(s.Rollout.LeftBehind)
	}
	return s
}

// Retire is the state of a service that left the configuration, or of one that is in
// it again; its rollout ends with it.
func (s State) Retire(retired bool) State {
	s.Retired = retired
	if retired {
		s.Rollout = nil
	}
	return s
}

// Phase is Steady when there is no rollout.
func (s State) Phase() Phase {
	if s.Rollout == nil {
		return Steady
	}
	return s.Rollout.Phase
}

// Weights are the colours' shares of new connections; they sum to Whole. None while the
// state is Unsettled.
func (s State) Weights() map[discovery.Colour]units.Share {
	r := s.Rollout
	switch {
	case s.Unsettled:
		return nil
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

// Drains reports whether the member gets no new connections because it drains.
func (s State) Drains(m Member) bool {
	r := s.Rollout
	switch {
	case s.Retired || m.Outgoing:
		return true
	case r == nil || !r.Old(m) || r.Phase != Draining && r.Phase != Soaking:
		return false
	}
	return !r.Policy.Stagger.InPlace || m.Turn > 0
}

// Remembered is the fleet of a service that was not read since this process started:
// the instances that were in discovery when the state was stored, taken as healthy.
// Envoys have them, and that discovery cannot be read says nothing of them.
func (s State) Remembered(unread string) discovery.Fleet {
	f := discovery.Fleet{Unread: unread, Err: unread + "; the instances that were stored last are used"}
	for key, m := range s.Members {
		if key == m.ID && m.Departed.IsZero() {
			f.Instances = append(f.Instances, discovery.Instance{ID: m.ID, Node: m.Node, Colour: m.Colour, Addr: m.Addr, Drain: m.Drain, Health: discovery.Passing})
		}
	}
	slices.SortFunc(f.Instances, func(a, b discovery.Instance) int { return cmp.Compare(a.ID, b.ID) })
	f.Twins = discovery.FindTwins(f.Instances)
	return f
}

// NewUnsettled is the state of a service of which nothing is stored: which colour is
// live has to be read from the instances and the proxies before anything of it is
// published. live is the one that a service has which was never seen before.
func NewUnsettled(service discovery.Service, live discovery.Colour) State {
	s := New(service, live)
	s.Unsettled = true
	return s
}
