package state

import (
	"net/netip"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// Member is one instance as remembered. Its key among the members is its ID, or, once
// another instance took its ID over, the name that FormerName gives it.
type Member struct {
	Identity
	// Departed is when it left discovery without being proven empty; zero while
	// it is there. Never zero under a former name.
	Departed time.Time `json:"departed,omitzero"`
	Quota
	Counts
	Standing
	HookCalls
	// Release is zero before its first rollout, and where it declares no version.
	Release Release `json:"release,omitzero"`
}

// Identity is what never changes of a member: an instance that comes back with
// another colour, address or id is another member.
type Identity struct {
	ID discovery.InstanceID `json:"id"`
	// Node is the machine that registered it; empty where the registry has none, and in
	// a state that an older rolloutd stored.
	Node   string           `json:"node,omitempty"`
	Colour discovery.Colour `json:"colour"`
	Addr   netip.AddrPort   `json:"addr"`
	// Drain is the base URL of its drain endpoint; empty without one. The only
	// part that may change: the process may move its endpoint.
	Drain string `json:"drain,omitempty"`
}

// Quota is what the step that runs allows a member. The zero value is: hold.
type Quota struct {
	// Ceiling is what the current order says, in connections; nil: hold. Set by a
	// step of Draining only. Invariant: not below 0.
	Ceiling *int `json:"ceiling,omitempty"`
	// Share is how many closes the current step gives it, and Start when within
	// the step the first of them comes. Without a Ceiling it is the share of an
	// earlier step that a silent instance may have closed and not said so.
	// Invariant: neither is below 0.
	Share int            `json:"share,omitempty"`
	Start units.Duration `json:"start,omitempty"`
	// Notice is what clients get that are asked; 0: its instance cannot, or nobody is.
	Notice units.Duration `json:"notice,omitempty"`
}

// ClosedBy is how many connections the member has let go so long after a step was
// ordered.
func (q Quota) ClosedBy(after, every time.Duration) int {
	if after < q.Start.D() {
		return 0
	}
	return min(q.Share, 1+int((after-q.Start.D())*time.Duration(q.Share)/every))
}

// Standing is on which side of a rollout a member is, beside its colour.
type Standing struct {
	// Outgoing: it runs an older release than the target's of its own colour, and
	// lets its connections go like the old side. Also while Steady, until it left.
	Outgoing bool `json:"outgoing,omitempty"`
	// Fresh: it joined a colour that drained already and held nothing; it is left
	// alone, as the beginning of the next release, until that is promoted.
	Fresh bool `json:"fresh,omitempty"`
	// Closed: it gets no new connections until it says that it serves. It last said that
	// it refuses them, or it is one of a target that has not said that it takes them.
	Closed bool `json:"closed,omitempty"`
	// Doubted: since it joined another registration of the other colour has had what it has,
	// so that it was never given a connection under this name.
	Doubted bool `json:"doubted,omitempty"`
	// Turn is the batch in which it drains; 0: its turn has not come. Invariant:
	// not above the rollout's Batch.
	Turn int `json:"turn,omitempty"`
}

// HookCalls counts the calls of the policy's hook for a member in this rollout.
type HookCalls struct {
	// Hooked is how many were ordered, and HookedAt when the last was. Invariant:
	// HookedAt is zero while Hooked is 0.
	Hooked   int       `json:"hooked,omitempty"`
	HookedAt time.Time `json:"hooked_at,omitzero"`
}

// Is reports whether the instance is the member; its drain endpoint may have moved.
func (m Member) Is(in discovery.Instance) bool { return m.Colour == in.Colour && m.Addr == in.Addr }

// FormerName is the key of a member whose id was taken over by another instance.
func FormerName(m Member) discovery.InstanceID {
	return discovery.InstanceID(string(m.ID) + "@" + m.Addr.String() + "/" + string(m.Colour))
}

// Release is which release a member ran, and in which process, when the rollout began:
// an update in place is the same id with another process and another version.
type Release struct {
	Version string `json:"version,omitempty"`
	// Boot stands for the name of the process; empty where it says none.
	Boot string `json:"boot,omitempty"`
}

// Differs reports whether an instance is registered with another version. One that is
// not told is none.
func (r Release) Differs(in discovery.Instance) bool {
	return r.Version != "" && in.Version != "" && in.Version != r.Version
}

// Updated reports whether the member's id has another process with another release now.
// The same process is the same release, whatever its registration says meanwhile.
func Updated(m Member, in discovery.Instance, now observed.Sighting) bool {
	if !m.Release.Differs(in) || now.At.IsZero() {
		return false
	}
	if boot := Token(now.Status.Boot); m.Release.Boot != "" && boot != "" {
		return boot != m.Release.Boot
	}
	return len(now.Former) > 0
}
