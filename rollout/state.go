package rollout

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/returns"
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

// Member is one instance as remembered. Its key among the members is its ID, or, once
// another instance took its ID over, the name that former gives it.
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
}

// Counts is where a member's totals were when the rollout began to count.
type Counts struct {
	// Counted: Totals are the instance's when the rollout began to count; later
	// totals minus these are the rollout's own. Invariant: they are 0 while it is not
	// counted.
	Counted bool `json:"counted,omitempty"`
	Totals
	// Admissions are its totals when they were last added to the rollout's; they
	// are kept for the target only.
	Admissions
	// Lost is how many connections it held when its process died. Invariant: not
	// below 0.
	Lost int `json:"lost,omitempty"`
	// Process is the one that is counted; zero while it is not.
	Process Process `json:"process,omitzero"`
}

// Totals is how many connections were evicted, and how many clients returned: as the
// application says, and by their tickets.
type Totals struct {
	Evicted  uint64 `json:"evicted,omitempty"`
	Returned uint64 `json:"returned,omitempty"`
	Ticketed uint64 `json:"ticketed,omitempty"`
}

// Admissions is how many new connections were accepted and how many refused, in all.
// A total that fell began anew.
type Admissions struct {
	Accepted uint64 `json:"accepted,omitempty"`
	Refused  uint64 `json:"refused,omitempty"`
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

// Rollout is one promotion on its way. From drains, To gets the new connections:
// To is the target, From the old side. An abort swaps them.
type Rollout struct {
	ID string `json:"id"`
	// Invariant: From and To are the two colours; To is the live one if, and only
	// if, the rollout is Aborting.
	From     discovery.Colour `json:"from"`
	To       discovery.Colour `json:"to"`
	Phase    Phase            `json:"phase"`
	Aborting bool             `json:"aborting,omitempty"`
	Paused   bool             `json:"paused,omitempty"`
	Forced   bool             `json:"forced,omitempty"`
	Policy   Policy           `json:"policy"`
	Started  time.Time        `json:"started"`
	// Since is when the phase began.
	Since time.Time `json:"since"`
	// Settled is when what the phase waits for first was complete: in Shifting
	// and Confirming every proxy's acknowledgement, in Draining the closed gates.
	// Zero before.
	Settled time.Time `json:"settled,omitzero"`
	// Weight is To's share of new connections while Opening and Shifting;
	// afterwards To has them all. Invariant: between 0 and units.Whole.
	Weight units.Share `json:"weight,omitempty"`

	Steps
	Toll
	Batches

	// Red is since when a gate has been closed; zero while all are open.
	Red time.Time `json:"red,omitzero"`
	// LeftBehind names proxies and instances that the rollout no longer waits for.
	LeftBehind []string `json:"left_behind,omitempty"`
	// Events are its history, oldest first. Invariant: at most eventsKept.
	Events []Event `json:"events,omitempty"`
	// Omitted is how many events in the middle are not remembered.
	Omitted int `json:"omitted,omitempty"`
}

// Steps is how the funnel goes. The zero value is a funnel that has not begun.
type Steps struct {
	// Step counts orders within the epoch; StepAt is the earliest time of the next,
	// and OrderedAt when the last that closes connections was given. StepAt is kept
	// when the epoch changes: the cap holds across it.
	Step      uint64    `json:"step"`
	StepAt    time.Time `json:"step_at,omitzero"`
	OrderedAt time.Time `json:"ordered_at,omitzero"`
	// Pace is how the pace follows the target.
	Pace Pace `json:"pace,omitzero"`
	// Cap is the most that the last step may close, by the cap of then.
	Cap int `json:"cap,omitempty"`
	// Given is what the last step was allowed. Invariant: between 0 and Cap.
	Given Allowance `json:"given,omitzero"`
	// Spent is what the last step gave to processes that are no more: they may have
	// closed it all, so it counts in the cap like what the others were given.
	Spent []Spent `json:"spent,omitempty"`
}

// Spent is the share of a process that is no more, as in Quota.
type Spent struct {
	Share int            `json:"share,omitempty"`
	Start units.Duration `json:"start,omitempty"`
}

// turnedRound is the funnel when a rollout goes back: steps are counted from 0 in the
// new epoch, and the next may begin no earlier.
func (s Steps) turnedRound() Steps {
	return Steps{StepAt: s.StepAt, OrderedAt: s.OrderedAt, Cap: s.Cap, Given: s.Given} // StepAt is a whole step later than what was spent
}

// Toll is what happened to clients.
type Toll struct {
	// Total is what From held when the funnel started; 0 before.
	Total int `json:"total,omitempty"`
	// RefusedBefore is how many connections a second From refused before it drained.
	// Invariant: not below 0.
	RefusedBefore float64 `json:"refused_before,omitempty"`
	// Totals are the sums of members that are not Counted any more: forgotten ones,
	// and all of them before an abort.
	Totals
	// Basis is what clients that return are counted by; empty before the funnel started.
	Basis Basis `json:"basis,omitempty"`
	// Lost is the sum of connections that died with forgotten members.
	Lost int `json:"lost,omitempty"`
	// Owed is how many clients of the rollout that this one superseded were on their
	// way when it began.
	Owed int `json:"owed,omitempty"`
	// Marks is when how many had been evicted or lost, back to the return timeout,
	// and NeverBack how many are no longer waited for since they were away longer.
	// Invariant: Gone never falls from one mark to the next.
	Marks     []returns.Mark `json:"marks,omitempty"`
	NeverBack int            `json:"never_back,omitempty"`
	// Outstanding is who is on his way for certain.
	Outstanding Outstanding `json:"outstanding,omitzero"`
	// Admissions are what the target admitted and refused since the funnel started,
	// and Flow what they were when it was last looked at for refusals.
	Admissions
	Flow Flow `json:"flow,omitzero"`
	// Refusals is whose word the refused ones are by.
	Refusals Refusals `json:"refusals,omitzero"`
	// Returns tells how many evicted clients are on their way; nil before the
	// funnel starts, and where the application tells returns.
	Returns *returns.Estimate `json:"returns,omitempty"`
}

// turnedRound is the toll when a rollout goes back: what was done to clients stays;
// what is known of the target is of another one.
func (t Toll) turnedRound() Toll {
	return Toll{
		Totals: t.Totals, Lost: t.Lost, Owed: t.Owed,
		Marks: t.Marks, NeverBack: t.NeverBack, Basis: t.Basis.inherited(), Refusals: t.Refusals.turnedRound(),
	}
}

// inherited is the basis of what follows at once: who returns then was let go before,
// so that own returns cannot be judged anew.
func (b Basis) inherited() Basis {
	if b == ByReturns {
		return b
	}
	return ""
}

// Flow is what the target had admitted and refused by a moment.
type Flow struct {
	At time.Time
	Admissions
}

// flowKeys are the keys of a stored Flow, which are older than Admissions' own.
type flowKeys struct {
	At                time.Time
	Accepted, Refused uint64
}

func (f Flow) MarshalJSON() ([]byte, error) {
	return json.Marshal(flowKeys{f.At, f.Accepted, f.Refused})
}

func (f *Flow) UnmarshalJSON(data []byte) error {
	var keys flowKeys
	err := json.Unmarshal(data, &keys)
	*f = Flow{keys.At, Admissions{keys.Accepted, keys.Refused}}
	return err
}

// Batches is how a staggered rollout goes. The zero value is one before its first
// batch, or without stagger.
type Batches struct {
	// Batch counts the batches that were begun; Turned is when the last was begun,
	// and BatchAt when it was done, zero while it drains.
	Batch   int       `json:"batch,omitempty"`
	Turned  time.Time `json:"turned,omitzero"`
	BatchAt time.Time `json:"batch_at,omitzero"`
	// Spill: in place, the target is full and new connections go to old instances
	// whose turn has not come.
	Spill bool `json:"spill,omitempty"`
}

// NewState is the state of a service that was never seen before: steady on live.
func NewState(service discovery.Service, live discovery.Colour) State {
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
