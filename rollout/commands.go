package rollout

import (
	"fmt"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// Command is what an operator asks for: Promote, Pause, Resume, Abort, SetPace, Adopt or Forget.
type Command interface {
	service() discovery.Service
	message() state.Message
	// apply is pure: it returns the state as it should be and what that does. An
	// error is a *Refusal, and the state is then as it was.
	apply(terms policy.Policy, s state.State, seen observed.Seen, now time.Time) (state.State, Answer, error)
}

// Subject is the service that a command is for.
func Subject(c Command) discovery.Service { return c.service() }

func (c Promote) message() state.Message { return c.Message }
func (c Pause) message() state.Message   { return c.Message }
func (c Resume) message() state.Message  { return c.Message }
func (c Abort) message() state.Message   { return c.Message }
func (c SetPace) message() state.Message { return c.Message }
func (c Adopt) message() state.Message   { return "" }
func (c Forget) message() state.Message  { return "" }

// Apply decides what a command does. Pure; an error is a *Refusal, and the state is
// then as it was. The caller stores the state before it answers.
func Apply(c Command, terms policy.Policy, s state.State, seen observed.Seen, now time.Time) (state.State, Answer, error) {
	if err := c.message().Check(); err != nil {
		return s, Answer{}, refuse(BadRequest, "%s: %v", s.Service, err)
	}
	next, answer, err := c.apply(terms, s, seen, now)
	if err != nil {
		return s, Answer{}, err
	}
	if err := next.Check(); err != nil {
		return s, Answer{}, RefuseUnstored(s.Service, unchecked(err))
	}
	return next, answer, nil
}

// Promote moves the service to Target. Promoting the live colour while steady
// says so and changes nothing.
type Promote struct {
	Service   discovery.Service
	Target    discovery.Colour
	Overrides policy.Overrides
	// Force goes on although the plan has problems; it is recorded.
	Force   bool
	Message state.Message `json:",omitempty"`
}

// Pause closes nothing more until Resume; the routing stays as it is.
type Pause struct {
	Service discovery.Service
	Message state.Message `json:",omitempty"`
}

// Resume ends a pause.
type Resume struct {
	Service discovery.Service
	Message state.Message `json:",omitempty"`
}

// Abort goes back, paced like the way there.
type Abort struct {
	Service discovery.Service
	Message state.Message `json:",omitempty"`
}

// SetPace changes the cap of the running rollout.
type SetPace struct {
	Service discovery.Service
	Funnel  units.Funnel
	Message state.Message `json:",omitempty"`
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

func (c Pause) apply(_ policy.Policy, s state.State, seen observed.Seen, now time.Time) (state.State, Answer, error) {
	r := s.Rollout
	if r == nil {
		return s, Answer{}, refuse(NoRollout, "%s: no rollout is under way, so there is nothing to pause", s.Service)
	}
	if r.Paused {
		return s, Answer{Text: fmt.Sprintf("%s: rollout %s is paused already", s.Service, r.ID), Rollout: r.ID}, nil
	}
	t := newTurn(s, seen, now)
	t.rollout().Paused = true
	t.restep()
	t.note(c.Message.About("paused"))
	return t.state, Answer{Text: fmt.Sprintf("%s: rollout %s is paused; new connections go to %s", s.Service, r.ID, favoured(t.state)), Rollout: r.ID}, nil
}

// favoured is the colour that gets most new connections.
func favoured(s state.State) discovery.Colour {
	w := s.Weights()
	if w[discovery.Green] > w[discovery.Blue] {
		return discovery.Green
	}
	return discovery.Blue
}

func (c Resume) apply(_ policy.Policy, s state.State, _ observed.Seen, now time.Time) (state.State, Answer, error) {
	r := s.Rollout
	switch {
	case r == nil:
		return s, Answer{}, refuse(NoRollout, "%s: no rollout is under way, so there is nothing to resume", s.Service)
	case !r.Paused:
		return s, Answer{}, refuse(NoRollout, "%s: rollout %s is not paused, so there is nothing to resume", s.Service, r.ID)
	}
	t := newTurn(s, observed.Seen{}, now)
	t.rollout().Paused = false
	t.note(c.Message.About("resumed"))
	return t.state, Answer{Text: fmt.Sprintf("%s: rollout %s goes on", s.Service, r.ID), Rollout: r.ID}, nil
}

func (c Abort) apply(_ policy.Policy, s state.State, seen observed.Seen, now time.Time) (state.State, Answer, error) {
	r := s.Rollout
	switch {
	case r == nil:
		return s, Answer{}, refuse(NoRollout, "%s: no rollout is under way, so there is nothing to abort; to go back, promote %s", s.Service, s.Live.Other())
	case r.Aborting:
		return s, Answer{Text: fmt.Sprintf("%s: rollout %s is going back already", s.Service, r.ID), Rollout: r.ID}, nil
	}
	t := newTurn(s, seen, now)
	turnRound(t, c.Message.About("abort: back to "+string(r.From)))
	r = t.state.Rollout
	return t.state, Answer{Text: fmt.Sprintf("%s: rollout %s goes back to %s at %s", s.Service, r.ID, r.To, r.Policy.Funnel), Rollout: r.ID}, nil
}

// turnRound has the rollout go back: the same machine in the other direction.
func turnRound(t *turn, event string) {
	t.restep()
	share := t.state.Weights()[t.state.Rollout.From]
	for _, f := range t.members().all {
		// What was evicted and returned so far is kept, and counted on from the same
		// answers: a client that is on its way now comes back in between.
		if t.state.Members[f.key].Counted && !f.heard.IsZero() {
			t.fold(f.key)
			if !t.seen.Instances[f.key].Refused {
				t.count(f.key)
			}
		}
		m := t.state.Members[f.key]
		m.Standing, m.HookCalls, m.Admissions = state.Standing{Outgoing: m.Outgoing, Closed: staysClosed(&f, m), Doubted: m.Doubted}, state.HookCalls{}, f.admissions
		t.put(f.key, m)
	}
	s := t.write()
	s.Epoch++
	r := s.Rollout
	r.From, r.To, r.Aborting, r.Paused, r.Weight = r.To, r.From, true, false, share
	r.Steps = r.Steps.TurnedRound()
	r.Toll = r.Toll.TurnedRound()
	r.Batches, r.Red = state.Batches{}, time.Time{}
	t.enter(state.Opening, event)
}

func (c SetPace) apply(_ policy.Policy, s state.State, seen observed.Seen, now time.Time) (state.State, Answer, error) {
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
	t := newTurn(s, seen, now)
	t.rollout().Policy.Funnel = c.Funnel
	t.restep()
	t.note(c.Message.About(fmt.Sprintf("pace %s instead of %s", c.Funnel, r.Policy.Funnel)))
	return t.state, Answer{Text: fmt.Sprintf("%s: rollout %s lets %s go from now on", s.Service, r.ID, c.Funnel), Rollout: r.ID}, nil
}

func (c Promote) apply(terms policy.Policy, s state.State, seen observed.Seen, now time.Time) (state.State, Answer, error) {
	if no := refuseUnsettled(s, seen, now); no != nil {
		return s, Answer{}, no
	}
	s, left, err := supersede(s, seen, c.Target, now)
	if err != nil {
		return s, Answer{}, err
	}
	if s.Live == c.Target {
		return s, Answer{Text: fmt.Sprintf("%s: %s is live already, nothing to do", s.Service, c.Target)}, nil
	}
	terms = c.Overrides.Over(terms)
	plan, err := MakePlan(s, seen, c.Target, terms, now)
	if err != nil {
		return s, Answer{}, err
	}
	if len(plan.Problems) > 0 && !c.Force {
		return s, Answer{}, refuse(Infeasible, "%s: %s; --force promotes all the same", s.Service, strings.Join(plan.Problems, "; "))
	}
	t := newTurn(s, seen, now)
	begin(t, c, plan, left)
	id := t.state.Rollout.ID
	text := fmt.Sprintf("%s: rollout %s moves %d connections from %s to %s in about %s",
		s.Service, id, plan.Connections, s.Live, c.Target, plan.Takes)
	return t.state, Answer{Text: text, Rollout: id}, nil
}

// Plan computes what the promotion would do. Beside a rollout to the same colour it is
// what it would take to start again; of one to the other colour that it may
// supersede, what comes then. The error is a *Refusal.
func (c Promote) Plan(terms policy.Policy, s state.State, seen observed.Seen, now time.Time) (Plan, error) {
	if r := s.Rollout; r == nil || r.To != c.Target {
		after, _, err := supersede(s, seen, c.Target, now)
		if err != nil {
			return Plan{}, err
		}
		s = after
	}
	return MakePlan(s, seen, c.Target, c.Overrides.Over(terms), now)
}

// begin starts the planned rollout of a steady state.
func begin(t *turn, c Promote, plan Plan, left leftover) {
	s := t.write()
	// Above every epoch that an instance remembers: a state that was lost must not
	// make its orders stale.
	s.Epoch = max(s.Epoch, newest(t.situation)) + 1
	s.Rollout = &state.Rollout{
		ID: fmt.Sprintf("%s-%d", s.Service, s.Epoch), From: plan.From, To: plan.To, Phase: state.Opening,
		Forced: len(plan.Problems) > 0, Policy: plan.Policy, Overrides: c.Overrides, Started: t.now, Since: t.now,
		Steps: state.Steps{StepAt: left.stepAt}, Toll: state.Toll{Owed: left.owed, Basis: left.basis, Refusals: state.Refusals{Since: t.now, Was: refusedInAll(t.situation)}},
	}
	if n := len(s.History); n > 0 && s.History[n-1].Outcome == state.Adopted {
		// What an earlier state ordered may still be closing connections.
		s.Rollout.StepAt = units.Latest(left.stepAt, s.History[n-1].Ended.Add(2*plan.Policy.Funnel.Every.D()))
	}
	newer := len(t.members().target) > 0
	for _, f := range t.members().all {
		key, m := f.key, t.state.Members[f.key]
		// An older release stays out of its colour while there is a newer one.
		outgoing := m.Outgoing && m.Colour == plan.To && newer
		closed := m.Closed
		if m.Colour == plan.To && !outgoing {
			closed = f.endpoint && (!f.answers || f.refusing)
		}
		release := state.Release{}
		if f.instance != nil && f.instance.Version != "" {
			release = state.Release{Version: f.instance.Version, Boot: state.Token(t.seen.Instances[key].Status.Boot)}
		}
		t.put(key, state.Member{Identity: m.Identity, Departed: m.Departed, Release: release, Standing: state.Standing{Outgoing: outgoing, Closed: closed, Doubted: m.Doubted}})
		if left.owed > 0 && !f.heard.IsZero() {
			t.count(key) // from the same answers on: clients that are on their way come back in between
		}
	}
	event := fmt.Sprintf("promote %s: %d connections, %s at most", plan.To, plan.Connections, plan.Policy.Funnel)
	if s.Rollout.Forced {
		event += "; forced although " + strings.Join(plan.Problems, "; ")
	}
	t.note(c.Message.About(event))
}

// supersede ends a running rollout in favour of a promotion of the colour that it
// drains, when a newer release of that colour has joined meanwhile: the release
// that was on its way becomes the old side, and what is left of the one before
// goes on draining beside it. Nothing is ever sent to either again. Without a
// rollout the state is returned as it is.
func supersede(s state.State, seen observed.Seen, target discovery.Colour, now time.Time) (state.State, leftover, error) {
	r := s.Rollout
	if r == nil {
		return s, leftover{}, nil
	}
	t := newTurn(s, seen, now)
	var newer []*fact
	for _, f := range t.members().colour[target] {
		if f.serves && t.state.Members[f.key].Fresh {
			newer = append(newer, f)
		}
	}
	switch {
	case target == r.To:
		return s, leftover{}, refuse(InProgress, "%s: rollout %s to %s is %s; wait for it, or abort it first", s.Service, r.ID, r.To, r.Phase)
	case r.Phase != state.Draining && r.Phase != state.Soaking:
		return s, leftover{}, refuse(InProgress, "%s: rollout %s to %s is %s and nothing was closed yet; abort it to stay on %s", s.Service, r.ID, r.To, r.Phase, r.From)
	case len(newer) == 0 && r.Aborting:
		return s, leftover{}, refuse(InProgress, "%s: rollout %s is going back to %s; wait for it, or start instances of a newer %s release to promote them", s.Service, r.ID, r.To, target)
	case len(newer) == 0:
		return s, leftover{}, refuse(InProgress, "%s: rollout %s is draining %s; abort it to go back, or start instances of a newer %s release to promote them", s.Service, r.ID, target, target)
	}
	t.restep()
	t.note(fmt.Sprintf("superseded by a newer %s release: %s", target, keys(newer)))
	left := leftover{owed: t.moved().AtMost, stepAt: t.state.Rollout.StepAt, basis: t.state.Rollout.Basis.Inherited()}
	finish(t, state.Superseded)
	for _, f := range t.members().colour[target] {
		m := t.state.Members[f.key]
		m.Outgoing, m.Fresh = !m.Fresh, false
		t.put(f.key, m)
	}
	return t.state, left, nil
}

// leftover is what a superseding rollout inherits: how many clients are on their way,
// when the next step may begin, and what returning clients are counted by.
type leftover struct {
	owed   int
	stepAt time.Time
	basis  state.Basis
}

// Adopt says which colour is live where nothing is stored and the evidence does not
// prove it.
type Adopt struct {
	Service discovery.Service
	Live    discovery.Colour
}

func (c Adopt) service() discovery.Service { return c.Service }

func (c Adopt) apply(_ policy.Policy, s state.State, seen observed.Seen, now time.Time) (state.State, Answer, error) {
	if c.Live != discovery.Blue && c.Live != discovery.Green {
		return s, Answer{}, refuse(BadRequest, "%s: %q is no colour; use blue or green", s.Service, c.Live)
	}
	switch {
	case s.Unsettled:
	case s.Rollout == nil && s.Live == c.Live:
		return s, Answer{Text: fmt.Sprintf("%s: %s is live already, nothing to do", s.Service, c.Live)}, nil
	default:
		return s, Answer{}, refuse(Settled, "%s: the stored state says that %s is live, so there is nothing to adopt; to move to %s, promote it", s.Service, s.Live, c.Live)
	}
	t := newTurn(s, seen, now)
	absorb(t)
	takeOver(t, c.Live, gather(t.situation).Next(), "no state was stored: an operator says that "+string(c.Live)+" is live")
	return t.state, Answer{Text: fmt.Sprintf("%s: %s is live; all new connections go to it", s.Service, c.Live)}, nil
}

// refuseUnsettled is the refusal of what needs to know the live colour; nil when it is known.
func refuseUnsettled(s state.State, seen observed.Seen, now time.Time) *Refusal {
	if !s.Unsettled {
		return nil
	}
	if unread := newSituation(s, seen, now).unread(); unread != nil {
		return refuse(NotReady, "%s; mend that first", unread.Text)
	}
	return refuse(NotSettled, "%s: no state is stored of it and its live colour is not proven yet; rolloutctl status says why, and rolloutctl adopt COLOUR says which it is", s.Service)
}
