package rollout

import (
	"github.com/sluice-proxy/sluice/discovery"
)

// Command is what an operator asks for: Promote, Pause, Resume, Abort or SetPace.
type Command interface {
	service() discovery.Service
}

// Promote moves the service to Target. Promoting the live colour while steady
// says so and changes nothing.
type Promote struct {
	Service   discovery.Service
	Target    discovery.Colour
	Overrides Overrides
	// Force goes on although the plan has problems; it is recorded.
	Force bool
}

// Pause closes nothing more until Resume; the routing stays as it is.
type Pause struct{ Service discovery.Service }

// Resume ends a pause.
type Resume struct{ Service discovery.Service }

// Abort goes back, paced like the way there.
type Abort struct{ Service discovery.Service }

// SetPace changes the cap of the running rollout.
type SetPace struct {
	Service discovery.Service
	Funnel  Funnel
}

func (c Promote) service() discovery.Service { return c.Service }
func (c Pause) service() discovery.Service   { return c.Service }
func (c Resume) service() discovery.Service  { return c.Service }
func (c Abort) service() discovery.Service   { return c.Service }
func (c SetPace) service() discovery.Service { return c.Service }

// Answer is what an accepted command did, in one sentence.
type Answer struct {
	Text string `json:"text"`
	// Rollout is the id of the rollout that the command started or changed;
	// empty when there was nothing to do.
	Rollout string `json:"rollout,omitempty"`
}

// Refusal is the error of a command that was refused: nothing was changed. Code
// is for machines, Text is one sentence with the reason and the way out.
type Refusal struct {
	Code Code
	Text string
}

func (r *Refusal) Error() string { return r.Text }

// Codes of refusals.
const (
	UnknownService Code = "unknown_service"
	NotReady       Code = "not_ready"   // discovery or state not read yet
	InProgress     Code = "in_progress" // a rollout is under way
	NoRollout      Code = "no_rollout"  // there is none
	NoTarget       Code = "no_target"   // the target has no healthy instance
	Infeasible     Code = "infeasible"  // the plan has problems; --force overrides
	BadRequest     Code = "bad_request" // the request itself is wrong
	NotStored      Code = "not_stored"  // the state could not be stored
)

// Plan is what a promotion would do, computed before anything happens.
type Plan struct {
	Service discovery.Service `json:"service"`
	From    discovery.Colour  `json:"from"`
	To      discovery.Colour  `json:"to"`
	Policy  Policy            `json:"policy"`
	// Connections is what From holds now.
	Connections int `json:"connections"`
	// Steps is how many steps the funnel needs; Takes how long the whole
	// promotion does, from promote to the last eviction.
	Steps int      `json:"steps"`
	Takes Duration `json:"takes"`
	// PeakPerSecond is the highest rate of evictions.
	PeakPerSecond float64 `json:"peak_per_second"`
	// Room is the free capacity of the target; nil when not declared by all.
	Room *int `json:"room"`
	// Notes are worth knowing; Problems make promote refuse unless forced.
	Notes    []string `json:"notes,omitempty"`
	Problems []string `json:"problems,omitempty"`
}

// View is one service as the controller sees it at one moment. Never changed
// once published.
type View struct {
	State  State
	Seen   Seen
	Wish   Wish
	Reason Reason
	// Policy is the configured one, which the next promotion starts from.
	Policy Policy
}
