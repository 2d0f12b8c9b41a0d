package rollout

import (
	"fmt"
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

// historyKept is how many finished rollouts a state remembers.
const historyKept = 20

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
// twice is harmless. Treat as a value: Clone before changing.
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
	// Rollout is nil while steady.
	Rollout *Rollout `json:"rollout,omitempty"`
	// History is the finished rollouts, oldest first.
	History []Record `json:"history,omitempty"`
	// Retired: the service left the configuration; it gets no new connections
	// and is forgotten once it is proven empty.
	Retired bool `json:"retired,omitempty"`
}

// Member is one instance as remembered. Colour, Addr and Drain never change: an
// instance that comes back with others is another member.
type Member struct {
	ID     discovery.InstanceID `json:"id"`
	Colour discovery.Colour     `json:"colour"`
	Addr   netip.AddrPort       `json:"addr"`
	Drain  string               `json:"drain,omitempty"`
	// Departed is when it left discovery without being proven empty; zero while
	// it is there.
	Departed time.Time `json:"departed,omitzero"`
	// Ceiling is what the current order says; nil: hold.
	Ceiling *int `json:"ceiling,omitempty"`
	// Share is how many closes the current step gives it, and Start when within
	// the step the first of them comes. Without a Ceiling it is the share of an
	// earlier step that a silent instance may have closed and not said so.
	Share int            `json:"share,omitempty"`
	Start units.Duration `json:"start,omitempty"`
	// Counted: Evicted and Returned are the instance's totals when the rollout
	// began to count; later totals minus these are the rollout's own.
	Counted  bool   `json:"counted,omitempty"`
	Evicted  uint64 `json:"evicted,omitempty"`
	Returned uint64 `json:"returned,omitempty"`
	// Accepted and Refused are its totals when they were last added to the
	// rollout's; they are kept for the side that takes over only.
	Accepted uint64 `json:"accepted,omitempty"`
	Refused  uint64 `json:"refused,omitempty"`
	// Lost is how many connections it held when its process died.
	Lost int `json:"lost,omitempty"`
	// Outgoing: it runs an older release than the one of its colour that takes
	// over, and lets its connections go like the other side.
	Outgoing bool `json:"outgoing,omitempty"`
	// Fresh: it joined a colour that drains already and holds nothing; it is left
	// alone, as the beginning of the next release.
	Fresh bool `json:"fresh,omitempty"`
	// Turn is the batch in which it drains; 0: its turn has not come.
	Turn int `json:"turn,omitempty"`
	// Hooked counts the calls of the policy's hook for it in this rollout, and
	// HookedAt is when the last was ordered.
	Hooked   int       `json:"hooked,omitempty"`
	HookedAt time.Time `json:"hooked_at,omitzero"`
}

// Rollout is one promotion on its way. From drains, To gets the new
// connections; an abort swaps them.
type Rollout struct {
	ID       string           `json:"id"`
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
	// afterwards To has them all.
	Weight units.Share `json:"weight,omitempty"`

	Steps
	Toll
	Batches

	// Red is since when a gate has been closed; zero while all are open.
	Red time.Time `json:"red,omitzero"`
	// LeftBehind names proxies and instances that the rollout no longer waits for.
	LeftBehind []string `json:"left_behind,omitempty"`
	Events     []Event  `json:"events,omitempty"`
	// Omitted is how many events in the middle are not remembered.
	Omitted int `json:"omitted,omitempty"`
}

// Steps is how the funnel goes.
type Steps struct {
	// Step counts orders within the epoch; StepAt is the earliest time of the next,
	// and OrderedAt when the last that closes connections was given.
	Step      uint64    `json:"step"`
	StepAt    time.Time `json:"step_at,omitzero"`
	OrderedAt time.Time `json:"ordered_at,omitzero"`
	// Pace is how the pace follows the side that takes over.
	Pace Pace `json:"pace,omitzero"`
	// Cap is the most that the last step may close, by the cap of then.
	Cap int `json:"cap,omitempty"`
	// Given is what the last step was allowed.
	Given Allowance `json:"given,omitzero"`
}

// Toll is what happened to clients.
type Toll struct {
	// Total is what From held when the funnel started.
	Total int `json:"total,omitempty"`
	// Evicted and Returned are the sums of members that are not Counted any
	// more: forgotten ones, and all of them before an abort.
	Evicted  uint64 `json:"evicted,omitempty"`
	Returned uint64 `json:"returned,omitempty"`
	// Lost is the sum of connections that died with forgotten members.
	Lost int `json:"lost,omitempty"`
	// Owed is how many clients of the rollout that this one superseded were on their
	// way when it began.
	Owed int `json:"owed,omitempty"`
	// Marks is when how many had been evicted or lost, back to the return timeout,
	// and NeverBack how many are no longer waited for since they were away longer.
	Marks     []returns.Mark `json:"marks,omitempty"`
	NeverBack int            `json:"never_back,omitempty"`
	// Accepted and Refused are what the side that takes over admitted and refused
	// since the funnel started, and Flow what they were when it was last looked at
	// for refusals.
	Accepted uint64 `json:"accepted,omitempty"`
	Refused  uint64 `json:"refused,omitempty"`
	Flow     Flow   `json:"flow,omitzero"`
	// Returns tells how many evicted clients are on their way; nil before the
	// funnel starts.
	Returns *returns.Estimate `json:"returns,omitempty"`
}

// Batches is how a staggered rollout goes.
type Batches struct {
	// Batch counts the batches that were begun; Turned is when the last was begun,
	// and BatchAt when it was done, zero while it drains.
	Batch   int       `json:"batch,omitempty"`
	Turned  time.Time `json:"turned,omitzero"`
	BatchAt time.Time `json:"batch_at,omitzero"`
	// Spill: in place, the side that takes over is full and new connections go to
	// old instances whose turn has not come.
	Spill bool `json:"spill,omitempty"`
}

// Event is one line of a rollout's history.
type Event struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

// Outcome is how a rollout ended.
type Outcome string

const (
	Done       Outcome = "done"
	Aborted    Outcome = "aborted"
	Superseded Outcome = "superseded" // by the promotion of a newer release
)

// Record is a finished rollout. From and To are as it was asked for, also when it
// was aborted and ended where it began.
type Record struct {
	ID      string           `json:"id"`
	From    discovery.Colour `json:"from"`
	To      discovery.Colour `json:"to"`
	Outcome Outcome          `json:"outcome"`
	Forced  bool             `json:"forced,omitempty"`
	Started time.Time        `json:"started"`
	Ended   time.Time        `json:"ended"`
	Evicted uint64           `json:"evicted"`
	// Lost is how many connections ended because their instance died.
	Lost int `json:"lost,omitempty"`
	// Returned and NeverBack are nil where nobody can tell; Estimated: they are
	// inferred from what the side that took over admitted.
	Returned   *uint64  `json:"returned"`
	NeverBack  *uint64  `json:"never_back"`
	Estimated  bool     `json:"estimated,omitempty"`
	LeftBehind []string `json:"left_behind,omitempty"`
	Events     []Event  `json:"events,omitempty"`
	Omitted    int      `json:"omitted,omitempty"`
}

// NewState is the state of a service that was never seen before: steady on live.
func NewState(service discovery.Service, live discovery.Colour) State {
	return State{Format: Format, Service: service, Live: live, Members: map[discovery.InstanceID]Member{}}
}

// Clone returns a deep copy.
func (s State) Clone() State {
	s.Members = maps.Clone(s.Members)
	if s.Members == nil {
		s.Members = map[discovery.InstanceID]Member{}
	}
	s.Proxies = slices.Clone(s.Proxies)
	s.History = slices.Clone(s.History)
	if s.Rollout != nil {
		r := *s.Rollout
		r.LeftBehind = slices.Clone(r.LeftBehind)
		r.Events = slices.Clone(r.Events)
		// Returns is a value that is replaced as a whole.
		s.Rollout = &r
	}
	return s
}

// Retire is the state of a service that left the configuration, or of one that is in
// it again; its rollout ends with it.
func (s State) Retire(retired bool) State {
	s = s.Clone()
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

// Check reports a state that no transition can have made.
func (s State) Check() error {
	switch {
	case s.Format > Format:
		return fmt.Errorf("state format %d is newer than this program's %d; run the newer rolloutd", s.Format, Format)
	case s.Format < 1:
		return fmt.Errorf("state format %d is not known; restore the state from a backup", s.Format)
	case s.Service == "":
		return fmt.Errorf("state names no service")
	case s.Live != discovery.Blue && s.Live != discovery.Green:
		return fmt.Errorf("state of %s: live colour is %q", s.Service, s.Live)
	}
	for id, m := range s.Members {
		if m.Colour != discovery.Blue && m.Colour != discovery.Green {
			return fmt.Errorf("state of %s: member %s has colour %q", s.Service, id, m.Colour)
		}
		if m.Ceiling != nil && *m.Ceiling < 0 {
			return fmt.Errorf("state of %s: member %s has ceiling %d", s.Service, id, *m.Ceiling)
		}
	}
	r := s.Rollout
	if r == nil {
		return nil
	}
	switch r.Phase {
	case Opening, Shifting, Confirming, Draining, Soaking:
	default:
		return fmt.Errorf("state of %s: phase is %q", s.Service, r.Phase)
	}
	if s.Epoch == 0 || r.ID == "" || r.From != r.To.Other() || (r.From != discovery.Blue && r.From != discovery.Green) {
		return fmt.Errorf("state of %s: rollout %q from %q to %q in epoch %d", s.Service, r.ID, r.From, r.To, s.Epoch)
	}
	if r.Aborting != (r.To == s.Live) {
		return fmt.Errorf("state of %s: rollout %s goes to %q while %q is live", s.Service, r.ID, r.To, s.Live)
	}
	if err := r.Policy.Funnel.Check(); err != nil {
		return fmt.Errorf("state of %s: rollout %s: %w", s.Service, r.ID, err)
	}
	if r.Returns != nil && !r.Returns.Whole() {
		return fmt.Errorf("state of %s: what rollout %s knows of returning clients is not whole", s.Service, r.ID)
	}
	return nil
}
