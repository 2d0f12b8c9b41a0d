package rollout

import (
	"fmt"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
)

// Command is what an operator asks for: Promote, Pause, Resume, Abort or SetPace.
type Command interface {
	service() discovery.Service
	// apply is pure: it returns the state as it should be and what that does. An
	// error is a *Refusal, and the state is then as it was.
	apply(policy Policy, s State, seen Seen, now time.Time) (State, Answer, error)
}

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

func refuse(c Code, format string, args ...any) *Refusal {
	return &Refusal{Code: c, Text: fmt.Sprintf(format, args...)}
}

func (c Promote) apply(policy Policy, s State, seen Seen, now time.Time) (State, Answer, error) {
	if r := s.Rollout; r != nil {
		return s, Answer{}, refuse(InProgress, "%s: rollout %s to %s is %s; wait for it, or abort it first", s.Service, r.ID, r.To, r.Phase)
	}
	if s.Live == c.Target {
		return s, Answer{Text: fmt.Sprintf("%s: %s is live already, nothing to do", s.Service, c.Target)}, nil
	}
	policy = c.Overrides.Over(policy)
	plan, err := MakePlan(s, seen, c.Target, policy, now)
	if err != nil {
		return s, Answer{}, err
	}
	if len(plan.Problems) > 0 && !c.Force {
		return s, Answer{}, refuse(Infeasible, "%s: %s; --force promotes all the same", s.Service, strings.Join(plan.Problems, "; "))
	}
	d := decider{s: s, seen: seen, now: now}
	d.touch()
	s = d.s
	// Above every epoch that an instance remembers: a state that was lost must not
	// make its orders stale.
	for key := range s.Members {
		s.Epoch = max(s.Epoch, seen.Instances[key].Status.Epoch)
	}
	s.Epoch++
	s.Rollout = &Rollout{
		ID: fmt.Sprintf("%s-%d", s.Service, s.Epoch), From: s.Live, To: c.Target, Phase: Opening,
		Forced: c.Force && len(plan.Problems) > 0, Policy: policy, Started: now, Since: now,
	}
	event := fmt.Sprintf("promote %s: %d connections, %s at most", c.Target, plan.Connections, policy.Funnel)
	if s.Rollout.Forced {
		event += "; forced although " + strings.Join(plan.Problems, "; ")
	}
	s.Rollout.note(now, event)
	for key, m := range s.Members {
		m.Counted, m.Evicted, m.Returned, m.Ceiling, m.Share, m.Start = false, 0, 0, nil, 0, 0
		s.Members[key] = m
	}
	text := fmt.Sprintf("%s: rollout %s moves %d connections from %s to %s in about %s",
		s.Service, s.Rollout.ID, plan.Connections, s.Live, c.Target, plan.Takes)
	return s, Answer{Text: text, Rollout: s.Rollout.ID}, nil
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
		r.StepAt = now.Add(r.Policy.Funnel.Every.D())
		d.hold()
	}
}

// favoured is the colour that gets most new connections.
func favoured(s State) discovery.Colour {
	w := weights(s)
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
	d.touch()
	// What was evicted and returned so far is kept, and counted on from the same
	// answers: a client that is on its way now comes back in between.
	for key, m := range d.s.Members {
		if sight := seen.Instances[key]; m.Counted && !sight.At.IsZero() {
			d.fold(key, m)
			d.count(key, sight.Status)
		}
	}
	d.restep(now)
	share := weights(d.s)[r.From]
	r = d.s.Rollout
	d.s.Epoch++
	r.From, r.To, r.Aborting, r.Paused, r.Weight = r.To, r.From, true, false, share
	r.Step, r.Total = 0, 0
	d.enter(Opening, "abort: back to "+string(r.To))
	return d.s, Answer{Text: fmt.Sprintf("%s: rollout %s goes back to %s at %s", s.Service, r.ID, r.To, r.Policy.Funnel), Rollout: r.ID}, nil
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
