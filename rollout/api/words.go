// Package api is rolloutd's side door for operators: the JSON words under /v1,
// the HTTP handler that says them and the client that asks. It decides nothing.
package api

import (
	"net/netip"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// A nil pointer in these words prints as null and means "not known", never 0.

// World is the answer of GET /v1/status and each line of GET /v1/watch.
type World struct {
	At time.Time `json:"at"`
	// Services is sorted by name.
	Services []Status `json:"services"`
}

// Aborting is the phase that Status and the metrics show while a rollout goes
// back; Rollout.Phase then says how far back it is.
const Aborting state.Phase = "aborting"

// Phases lists every phase that Status can show, in order.
var Phases = []state.Phase{state.Steady, state.Opening, state.Shifting, state.Confirming, state.Draining, state.Soaking, Aborting}

// Status is one service at one moment.
type Status struct {
	Service discovery.Service `json:"service"`
	// Live is empty while it is not known; Reason says why.
	Live   discovery.Colour `json:"live"`
	Phase  state.Phase      `json:"phase"`
	Paused bool             `json:"paused"`
	// Retired: the service left the configuration and is being emptied.
	Retired bool           `json:"retired,omitempty"`
	Reason  rollout.Reason `json:"reason"`
	// Policy is the configured one, which the next promotion starts from.
	Policy policy.Policy `json:"policy"`
	// Rollout is nil while steady.
	Rollout *Rollout `json:"rollout"`
	// Last is the newest finished rollout, without its events; nil before the first.
	Last *state.Record `json:"last"`
	// Colours are blue and green, in this order.
	Colours []Colour `json:"colours"`
	// Instances is sorted by colour, then by id.
	Instances []Instance          `json:"instances"`
	LeftOut   []discovery.LeftOut `json:"left_out"`
	// Notes are what the owners of instances should mend.
	Notes     []discovery.Note `json:"notes,omitempty"`
	Discovery Discovery        `json:"discovery"`
	Proxies   Proxies          `json:"proxies"`
}

// Rollout is the rollout that is under way.
type Rollout struct {
	ID       string           `json:"id"`
	From     discovery.Colour `json:"from"`
	To       discovery.Colour `json:"to"`
	Phase    state.Phase      `json:"phase"`
	Aborting bool             `json:"aborting"`
	Forced   bool             `json:"forced"`
	Started  time.Time        `json:"started"`
	// Since is when the phase began.
	Since time.Time `json:"since"`
	// Policy is the one this rollout runs with, overrides and pace included.
	Policy policy.Policy `json:"policy"`
	Step   uint64        `json:"step"`
	// Total is what the old side held when the funnel started, Held what it holds
	// now.
	Total int  `json:"total"`
	Held  *int `json:"held"`
	// Asked is how many of Held were asked to come over; they are among the evicted.
	Asked int `json:"asked,omitempty"`
	// Evicted by the funnel, Lost with instances that died, Returned to To. Where
	// returns are Exact, Evicted + Lost = Returned + Outstanding + NeverBack;
	// elsewhere NeverBack is null, Returned and Outstanding are estimates or null, and
	// AtLeast is how many are on their way for certain.
	Evicted     uint64  `json:"evicted"`
	Lost        uint64  `json:"lost"`
	Returned    *uint64 `json:"returned"`
	Outstanding *uint64 `json:"outstanding"`
	AtLeast     uint64  `json:"at_least,omitempty"`
	// NeverBack have been away for longer than the return timeout.
	NeverBack *uint64 `json:"never_back"`
	Exact     bool    `json:"exact"`
	Pace      Pace    `json:"pace"`
	// Window is the most clients that may be on their way now: the policy's or, by
	// auto, what follows from the cap and from how long they take; 0 is no bound.
	Window int `json:"window,omitempty"`
	// Alarm is what an operator has to know although the rollout goes on.
	Alarm string `json:"alarm,omitempty"`
	// Batch counts the batches that were begun, Batches those that there will be
	// by what is known now; 0 without stagger. Each instance says which is its.
	Batch   int `json:"batch,omitempty"`
	Batches int `json:"batches,omitempty"`
	// Spill: the target is full and new connections go to old instances whose turn
	// has not come.
	Spill bool `json:"spill,omitempty"`
	// Gates are the policy's, in its order.
	Gates []Gate `json:"gates"`
	// Hooks are the newest calls of the policy's hook, by instance.
	Hooks []Hook `json:"hooks"`
	// NextStepAt is the earliest time of the next step while draining.
	NextStepAt *time.Time `json:"next_step_at"`
	// ETA is when the last connection will have been evicted; while soaking,
	// when the rollout ends at the latest.
	ETA        *time.Time    `json:"eta"`
	LeftBehind []string      `json:"left_behind"`
	Events     []state.Event `json:"events"`
}

// Pace is the most that the next step closes, however much window and room there
// is.
type Pace struct {
	Close int `json:"close"`
	// Why it is below the cap; empty when it is not. It is above while it hurries.
	Why string `json:"why,omitempty"`
}

// Gate is one gate of the policy as it was asked last.
type Gate struct {
	Name string `json:"name"`
	// Open and At are null before the first answer.
	Open *bool `json:"open"`
	// Unanswered: there was no usable answer; it is then not open.
	Unanswered bool `json:"unanswered,omitempty"`
	// Text is one sentence that names the gate and says what was seen.
	Text string     `json:"text,omitempty"`
	At   *time.Time `json:"at"`
}

// Hook is the newest call of the policy's hook for one instance.
type Hook struct {
	Instance discovery.InstanceID `json:"instance"`
	// Attempt counts the calls for it, Since is when this one was ordered.
	Attempt int       `json:"attempt"`
	Since   time.Time `json:"since"`
	// Ended is null while it runs; Error says why it failed.
	Ended *time.Time `json:"ended"`
	Error string     `json:"error,omitempty"`
}

// Colour is one side of a service.
type Colour struct {
	Colour discovery.Colour `json:"colour"`
	// Weight is its share of new connections.
	Weight    units.Share `json:"weight"`
	Instances int         `json:"instances"`
	Healthy   int         `json:"healthy"`
	// Active and NewPerSecond sum over the instances that can tell.
	Active       *int     `json:"active"`
	NewPerSecond *float64 `json:"new_per_second"`
	// Room is what those that take new connections hold and may hold; null unless
	// all of them have a capacity.
	Room *rollout.Room `json:"room"`
	// Reported is what the proxies' own counters say that it holds in all, be it on
	// instances that are gone.
	Reported *int `json:"reported"`
	// Unreported names proxies that may hold connections and do not say.
	Unreported []string `json:"unreported,omitempty"`
	// ConnectP99 is the 99th percentile of the time that connecting to an
	// instance took lately; left out when not known.
	ConnectP99 units.Duration `json:"connect_p99,omitempty"`
}

// Instance is one instance, in discovery or departed and not proven empty.
type Instance struct {
	// ID is its name: its id, or id@node where another node has an instance of that id.
	ID discovery.InstanceID `json:"id"`
	// Node is the machine that registered it, where the registry has one.
	Node   string           `json:"node,omitempty"`
	Colour discovery.Colour `json:"colour"`
	Addr   netip.AddrPort   `json:"addr"`
	// Drain is its drain endpoint; left out when it has none.
	Drain string `json:"drain,omitempty"`
	// Health is empty when the instance is departed.
	Health discovery.Health `json:"health,omitempty"`
	// State is what its drain endpoint last said; empty when it never did. Heard is when
	// it answered last: one that is idle is asked every 30 seconds.
	State string     `json:"state,omitempty"`
	Heard *time.Time `json:"heard,omitempty"`
	// Held is what it says that it holds; of an instance without a drain endpoint,
	// what the proxies report.
	Held    *int `json:"held"`
	Ceiling *int `json:"ceiling"`
	// Requests are short ones under way, and Lingering were told to go and have not ended, by
	// its own word; neither is among Held.
	Requests  int `json:"requests,omitempty"`
	Lingering int `json:"lingering,omitempty"`
	// Asked is how many of Held were asked to come over; Left and Overstayed are its totals
	// of those that then went by themselves, and that were closed at the end of their notice.
	Asked      int    `json:"asked,omitempty"`
	Left       uint64 `json:"left,omitempty"`
	Overstayed uint64 `json:"overstayed,omitempty"`
	// Evicted, Accepted and Returned are its totals since its process started.
	Evicted  *uint64 `json:"evicted"`
	Accepted *uint64 `json:"accepted"`
	Returned *uint64 `json:"returned"`
	// EvictedByRollout is the part of Evicted that the current rollout counts.
	EvictedByRollout uint64 `json:"evicted_by_rollout"`
	Capacity         int    `json:"capacity,omitempty"`
	Version          string `json:"version,omitempty"`
	Departed         bool   `json:"departed,omitempty"`
	// CountedWith is the instance that has the same colour and address: both are one
	// process, and what is held is told there.
	CountedWith discovery.InstanceID `json:"counted_with,omitempty"`
	// Old: the rollout has it let its connections go, in the given Batch; that is 0
	// without stagger, or when it has nothing to let go.
	Old   bool `json:"old,omitempty"`
	Batch int  `json:"batch,omitempty"`
	// Error says why its drain endpoint gave no newest answer.
	Error string `json:"error,omitempty"`
	// Reported is what the proxies report of it, nil when none ever did.
	Reported *Reported `json:"reported"`
	// Differs is a lasting difference between what it says and what they report.
	Differs *Difference `json:"differs,omitempty"`
}

// Reported is one instance as the proxies report it, summed over them.
type Reported struct {
	Held      int     `json:"held"`
	PerSecond float64 `json:"per_second"`
	// Accepted and Refused count since rolloutd started.
	Accepted uint64 `json:"accepted"`
	Refused  uint64 `json:"refused"`
	// At is the oldest of the proxies' newest reports.
	At time.Time `json:"at"`
	// Silent names proxies that no longer report it; their last count stands.
	Silent []string `json:"silent,omitempty"`
}

// Difference is a lasting one, in connections held.
type Difference struct {
	Said     int       `json:"said"`
	Reported int       `json:"reported"`
	Since    time.Time `json:"since"`
}

// Discovery says what is wrong with what was read; both empty when nothing is.
type Discovery struct {
	Error   string `json:"error,omitempty"`
	Suspect string `json:"suspect,omitempty"`
}

// Proxies sums up the proxies as seen from one service.
type Proxies struct {
	Connected int `json:"connected"`
	// Confirmed counts those that acknowledged exactly what is published.
	Confirmed int         `json:"confirmed"`
	Nacks     []ProxyNack `json:"nacks"`
	// Unpublished says why they were not sent what the state wishes.
	Unpublished string `json:"unpublished,omitempty"`
}

// ProxyNack is a proxy that refused the newest publish.
type ProxyNack struct {
	Node    string `json:"node"`
	Message string `json:"message"`
}

// Proxy is one Envoy, for all services: GET /v1/proxies.
type Proxy struct {
	// Node is the name of the process: its node id or, where several share that, the id
	// and a number.
	Node      string `json:"node"`
	Connected bool   `json:"connected"`
	// Twins are the other processes with its node id that are connected: Envoys with a
	// copied bootstrap, or generations of one that is restarted hot. Contested: two
	// connections speak under the name, and it is not known yet whether they are two;
	// until then nothing that it acknowledges counts.
	Twins     []string `json:"twins,omitempty"`
	Contested bool     `json:"contested,omitempty"`
	// Since is when it connected, or when it went away.
	Since     time.Time `json:"since"`
	Address   string    `json:"address"`
	UserAgent string    `json:"user_agent,omitempty"`
	// Foreign: it asks for no listener, routes or clusters of any service, so nothing
	// waits for it: an xDS client that is none of these Envoys.
	Foreign bool `json:"foreign,omitempty"`
	// Holds is what it acknowledged, one entry per resource type.
	Holds []Holding `json:"holds"`
	// Nacks are the refusals that still stand; NackCount counts all there were.
	Nacks     []Rejection `json:"nacks"`
	NackCount uint64      `json:"nack_count"`
	// Withheld is what it has not been sent, and why.
	Withheld []Withheld `json:"withheld"`
	Reports  Reporting  `json:"reports"`
}

// Reporting is how a proxy's reports of what it carries fare.
type Reporting struct {
	// Loads and Counters are when the newest came; null: never.
	Loads    *time.Time `json:"loads"`
	Counters *time.Time `json:"counters"`
	// Silent: one of them came and no longer comes.
	Silent bool `json:"silent,omitempty"`
	// Partial: its counters do not say whether a process before it still has connections
	// (server.parent_connections), so a counter that is missing does not prove a 0.
	Partial bool `json:"partial,omitempty"`
	// Trouble is why the newest refused report was refused; Refused counts them.
	Trouble string `json:"trouble,omitempty"`
	Refused uint64 `json:"refused"`
	// Ignored names clusters that it reports and that were never published.
	Ignored []string `json:"ignored,omitempty"`
}

// Holding is what a proxy acknowledged of one resource type.
type Holding struct {
	Type      string `json:"type"`
	Resources int    `json:"resources"`
}

// Rejection is one refused response.
type Rejection struct {
	Type    string    `json:"type"`
	Names   []string  `json:"names,omitempty"`
	Message string    `json:"message"`
	At      time.Time `json:"at"`
}

// Withheld is a resource that a proxy is not sent.
type Withheld struct {
	Ref string `json:"ref"`
	Why string `json:"why"`
}

// ServiceInstances is one service's part of GET /v1/instances.
type ServiceInstances struct {
	Service   discovery.Service   `json:"service"`
	Instances []Instance          `json:"instances"`
	LeftOut   []discovery.LeftOut `json:"left_out"`
}

// Version is the answer of GET /v1/version.
type Version struct {
	Version string `json:"version"`
}

// Promotion is the body of POST /v1/services/{service}/promote. The overrides
// stand beside the target: {"target":"green","close":500,"every":"3s"}.
type Promotion struct {
	Target string `json:"target"`
	policy.Overrides
	Force   bool          `json:"force,omitempty"`
	Message state.Message `json:"message,omitempty"`
}

// saying is the body of POST …/pause, …/resume and …/abort; it may be empty.
type saying struct {
	Message state.Message `json:"message,omitempty"`
}

// pacing is the body of POST …/pace: {"close":500,"every":"3s"}.
type pacing struct {
	units.Funnel
	Message state.Message `json:"message,omitempty"`
}

// adoption is the body of POST /v1/services/{service}/adopt.
type adoption struct {
	Live discovery.Colour `json:"live"`
}

// Codes of refusals that only the API knows.
const (
	Unauthorized rollout.Code = "unauthorized" // no token, or a wrong one
	Internal     rollout.Code = "internal"     // not a refusal: something broke
)

// refusal is the body of every answer that is not 2xx.
type refusal struct {
	Error struct {
		Code rollout.Code `json:"code"`
		Text string       `json:"text"`
	} `json:"error"`
}
