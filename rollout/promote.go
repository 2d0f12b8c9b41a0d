package rollout

import (
	"fmt"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
)

func (c Promote) apply(policy Policy, s State, seen Seen, now time.Time) (State, Answer, error) {
	s, left, err := supersede(s, seen, c.Target, now)
	if err != nil {
		return s, Answer{}, err
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
	s = begin(s, seen, c.Target, policy, now)
	event := fmt.Sprintf("promote %s: %d connections, %s at most", c.Target, plan.Connections, policy.Funnel)
	if s.Rollout.Forced = len(plan.Problems) > 0; s.Rollout.Forced {
		event += "; forced although " + strings.Join(plan.Problems, "; ")
	}
	s.Rollout.note(now, event)
	if s.Rollout.Owed, s.Rollout.StepAt = left.owed, left.stepAt; left.owed > 0 {
		s = counting(s, seen)
	}
	text := fmt.Sprintf("%s: rollout %s moves %d connections from %s to %s in about %s",
		s.Service, s.Rollout.ID, plan.Connections, s.Live, c.Target, plan.Takes)
	return s, Answer{Text: text, Rollout: s.Rollout.ID}, nil
}

// Plan computes what the promotion would do. Beside a rollout to the same colour it is
// what it would take to start again; of one to the other colour that it may
// supersede, what comes then. The error is a *Refusal.
func (c Promote) Plan(policy Policy, s State, seen Seen, now time.Time) (Plan, error) {
	if r := s.Rollout; r == nil || r.To != c.Target {
		after, _, err := supersede(s, seen, c.Target, now)
		if err != nil {
			return Plan{}, err
		}
		s = after
	}
	return MakePlan(s, seen, c.Target, c.Overrides.Over(policy), now)
}

// begin starts a rollout of a steady state.
func begin(s State, seen Seen, target discovery.Colour, policy Policy, now time.Time) State {
	s = s.Clone()
	// Above every epoch that an instance remembers: a state that was lost must not
	// make its orders stale.
	for key := range s.Members {
		s.Epoch = max(s.Epoch, seen.Instances[key].Status.Epoch)
	}
	s.Epoch++
	s.Rollout = &Rollout{
		ID: fmt.Sprintf("%s-%d", s.Service, s.Epoch), From: s.Live, To: target, Phase: Opening,
		Policy: policy, Started: now, Since: now,
	}
	newer := false
	for _, m := range s.Members {
		newer = newer || s.Rollout.takes(m)
	}
	for key, m := range s.Members {
		s.Members[key] = Member{
			ID: m.ID, Colour: m.Colour, Addr: m.Addr, Drain: m.Drain, Departed: m.Departed,
			// An older release stays out of its colour while there is a newer one.
			Outgoing: m.Outgoing && m.Colour == target && newer,
		}
	}
	return s
}

// counting has everybody counted from the same answers on: clients that are on
// their way come back in between.
func counting(s State, seen Seen) State {
	d := decider{s: s, seen: seen}
	for key := range s.Members {
		if sight := seen.Instances[key]; !sight.At.IsZero() {
			d.count(key, sight.Status)
		}
	}
	return d.s
}

// supersede ends a running rollout in favour of a promotion of the colour that it
// drains, when a newer release of that colour has joined meanwhile: the release
// that was on its way becomes the old side, and what is left of the one before
// goes on draining beside it. Nothing is ever sent to either again. Without a
// rollout the state is returned as it is.
func supersede(s State, seen Seen, target discovery.Colour, now time.Time) (State, leftover, error) {
	r := s.Rollout
	if r == nil {
		return s, leftover{}, nil
	}
	d := decider{s: s, seen: seen, now: now}
	newer := d.members(func(key discovery.InstanceID, m Member) bool {
		return m.Fresh && m.Colour == target && d.serves(key, m)
	})
	switch {
	case target == r.To:
		return s, leftover{}, refuse(InProgress, "%s: rollout %s to %s is %s; wait for it, or abort it first", s.Service, r.ID, r.To, r.Phase)
	case r.Phase != Draining && r.Phase != Soaking:
		return s, leftover{}, refuse(InProgress, "%s: rollout %s to %s is %s and nothing was closed yet; abort it to stay on %s", s.Service, r.ID, r.To, r.Phase, r.From)
	case len(newer) == 0 && r.Aborting:
		return s, leftover{}, refuse(InProgress, "%s: rollout %s is going back to %s; wait for it, or start instances of a newer %s release to promote them", s.Service, r.ID, r.To, target)
	case len(newer) == 0:
		return s, leftover{}, refuse(InProgress, "%s: rollout %s is draining %s; abort it to go back, or start instances of a newer %s release to promote them", s.Service, r.ID, target, target)
	}
	d.restep(now)
	d.touch()
	d.s.Rollout.note(now, fmt.Sprintf("superseded by a newer %s release: %s", target, keys(newer)))
	left := leftover{owed: d.moved().AtMost, stepAt: d.s.Rollout.StepAt}
	d.finish(Superseded)
	for key, m := range d.s.Members {
		if m.Colour == target {
			m.Outgoing, m.Fresh = !m.Fresh, false
			d.put(key, m)
		}
	}
	return d.s, left, nil
}

// leftover is what a superseding rollout takes over: who is on his way, and when
// the next step may begin.
type leftover struct {
	owed   int
	stepAt time.Time
}
