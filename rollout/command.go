package rollout

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// Command is what an operator asks for: Promote, Pause, Resume, Abort or SetPace.
type Command interface {
	service() discovery.Service
	// apply is pure: it returns the state as it should be and what that does. An
	// error is a *Refusal, and the state is then as it was.
	apply(policy Policy, s State, seen Seen, now time.Time) (State, Answer, error)
}

// Subject is the service that a command is for.
func Subject(c Command) discovery.Service { return c.service() }

// Apply decides what a command does, as Controller.Do does before it stores. Pure;
// an error is a *Refusal, and the state is then as it was.
func Apply(c Command, policy Policy, s State, seen Seen, now time.Time) (State, Answer, error) {
	return c.apply(policy, s, seen, now)
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
	Funnel  units.Funnel
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

func refuse(c Code, format string, args ...any) *Refusal {
	return &Refusal{Code: c, Text: fmt.Sprintf(format, args...)}
}

func (c Pause) apply(_ Policy, s State, _ Seen, now time.Time) (State, Answer, error) {
	r := s.Rollout
	if r == nil {
		return s, Answer{}, refuse(NoRollout, "%s: no rollout is under way, so there is nothing to pause", s.Service)
	}
	if r.Paused {
		return s, Answer{Text: fmt.Sprintf("%s: rollout %s is paused already", s.Service, r.ID), Rollout: r.ID}, nil
	}
	d := decider{s: s, now: now}
	d.touch()
	d.s.Rollout.Paused = true
	d.restep(now)
	d.s.Rollout.note(now, "paused")
	return d.s, Answer{Text: fmt.Sprintf("%s: rollout %s is paused; new connections go to %s", s.Service, r.ID, favoured(d.s)), Rollout: r.ID}, nil
}

// restep replaces the running step by one that holds: closes stop at once, not
// at the end of the step. The next one comes a full step later, so that the cap
// holds across the change.
func (d *decider) restep(now time.Time) {
	if r := d.s.Rollout; r.Phase == Draining {
		r.Step++
		r.StepAt, r.Cap, r.Given = now.Add(r.Policy.Funnel.Every.D()), 0, Allowance{}
		d.hold()
	}
}

// favoured is the colour that gets most new connections.
func favoured(s State) discovery.Colour {
	w := s.Weights()
	if w[discovery.Green] > w[discovery.Blue] {
		return discovery.Green
	}
	return discovery.Blue
}

func (c Resume) apply(_ Policy, s State, _ Seen, now time.Time) (State, Answer, error) {
	r := s.Rollout
	switch {
	case r == nil:
		return s, Answer{}, refuse(NoRollout, "%s: no rollout is under way, so there is nothing to resume", s.Service)
	case !r.Paused:
		return s, Answer{}, refuse(NoRollout, "%s: rollout %s is not paused, so there is nothing to resume", s.Service, r.ID)
	}
	s = s.Clone()
	s.Rollout.Paused = false
	s.Rollout.note(now, "resumed")
	return s, Answer{Text: fmt.Sprintf("%s: rollout %s goes on", s.Service, r.ID), Rollout: r.ID}, nil
}

func (c Abort) apply(_ Policy, s State, seen Seen, now time.Time) (State, Answer, error) {
	r := s.Rollout
	switch {
	case r == nil:
		return s, Answer{}, refuse(NoRollout, "%s: no rollout is under way, so there is nothing to abort; to go back, promote %s", s.Service, s.Live.Other())
	case r.Aborting:
		return s, Answer{Text: fmt.Sprintf("%s: rollout %s is going back already", s.Service, r.ID), Rollout: r.ID}, nil
	}
	d := decider{s: s, seen: seen, now: now}
	d.goBack("abort: back to " + string(r.From))
	r = d.s.Rollout
	return d.s, Answer{Text: fmt.Sprintf("%s: rollout %s goes back to %s at %s", s.Service, r.ID, r.To, r.Policy.Funnel), Rollout: r.ID}, nil
}

// goBack turns the rollout round: the same machine in the other direction.
func (d *decider) goBack(event string) {
	d.touch()
	d.restep(d.now)
	share := d.s.Weights()[d.s.Rollout.From]
	for _, key := range slices.Sorted(maps.Keys(d.s.Members)) {
		// What was evicted and returned so far is kept, and counted on from the same
		// answers: a client that is on its way now comes back in between.
		m := d.s.Members[key]
		if sight := d.seen.Instances[key]; m.Counted && !sight.At.IsZero() {
			d.fold(key, m)
			d.count(key, sight.Status)
			m = d.s.Members[key]
		}
		m.Turn, m.Fresh, m.Hooked, m.HookedAt = 0, false, 0, time.Time{}
		m.Accepted, m.Refused = d.totals(key, m)
		d.put(key, m)
	}
	r := d.s.Rollout
	d.s.Epoch++
	r.From, r.To, r.Aborting, r.Paused, r.Weight = r.To, r.From, true, false, share
	r.Step, r.Total, r.Batch, r.BatchAt, r.Turned = 0, 0, 0, time.Time{}, time.Time{}
	r.Returns = nil // the other side takes over, with other clients of its own
	r.Pace, r.Accepted, r.Refused, r.Flow, r.Spill, r.Red = Pace{}, 0, 0, Flow{}, false, time.Time{}
	d.enter(Opening, event)
}

func (c SetPace) apply(_ Policy, s State, _ Seen, now time.Time) (State, Answer, error) {
	r := s.Rollout
	if r == nil {
		return s, Answer{}, refuse(NoRollout, "%s: no rollout is under way; set the pace with promote --close N --every T or in the policy", s.Service)
	}
	if err := c.Funnel.Check(); err != nil {
		return s, Answer{}, refuse(BadRequest, "%s: %v", s.Service, err)
	}
	if r.Policy.Funnel == c.Funnel {
		return s, Answer{Text: fmt.Sprintf("%s: the pace is %s already", s.Service, c.Funnel), Rollout: r.ID}, nil
	}
	d := decider{s: s, now: now}
	d.touch()
	r = d.s.Rollout
	was := r.Policy.Funnel
	r.Policy.Funnel = c.Funnel
	d.restep(now)
	r.note(now, fmt.Sprintf("pace %s instead of %s", c.Funnel, was))
	return d.s, Answer{Text: fmt.Sprintf("%s: rollout %s lets %s go from now on", s.Service, r.ID, c.Funnel), Rollout: r.ID}, nil
}
