package rollout

import (
	"fmt"
	"slices"
	"time"
)

// Moment is when in a rollout a gate is asked. The empty one is never.
type Moment string

const (
	// AtStart: while Opening, before any new connection moves.
	AtStart Moment = "start"
	// AtStep: before each step of the funnel and each call of the hook.
	AtStep Moment = "step"
	// AtSoak: during the canary's soak, and between two batches.
	AtSoak Moment = "soak"
)

// Moments is every moment, in their order.
var Moments = []Moment{AtStart, AtStep, AtSoak}

// Asked reports whether the gate has to be open at the moment.
func (g Gate) Asked(at Moment) bool {
	return at != "" && (len(g.At) == 0 || slices.Contains(g.At, at))
}

// checkMoments reports a moment that there is not.
func (g Gate) checkMoments() error {
	for i, at := range g.At {
		if !slices.Contains(Moments, at) {
			return fmt.Errorf("gate %s is to be asked at %q; it must be start, step or soak", g.Name, at)
		}
		if slices.Contains(g.At[:i], at) {
			return fmt.Errorf("gate %s has %s twice; remove one", g.Name, at)
		}
	}
	return nil
}

// soaks reports whether a rollout of the policy has a soak in which gates are asked.
func (p Policy) soaks() bool { return p.Canary > 0 || !p.Stagger.Instances.IsZero() }

const (
	// gatesAhead is how long before a step the gates are asked, so that the step
	// does not wait for their answers.
	gatesAhead = time.Second
	// gatesSoaking is how often they are asked while a rollout opens or soaks.
	gatesSoaking = 5 * time.Second
)

// gateVerdict is what the gates of the policy say.
type gateVerdict struct {
	// stale names a gate whose answer is too old to count; the others do not matter
	// then.
	stale string
	// closed is the answer of a closed gate; empty when all are open. red: one of
	// them said no, while one that gave no answer did not.
	closed string
	red    bool
}

// gates is what the gates of a moment say by answers that were asked for at fresh or
// later. Going back waits for no gate.
func (s *situation) gates(at Moment, fresh time.Time) (v gateVerdict) {
	r := s.state.Rollout
	if r.Aborting {
		return v
	}
	for _, g := range r.Policy.Gates {
		switch reading := s.seen.Gates[g.Name]; {
		case !g.Asked(at):
		case reading.At.IsZero() || reading.At.Before(latest(fresh, r.Settled)):
			v.stale = g.Name
		case !reading.Open:
			v.closed = reading.Text
			v.red = v.red || !reading.Unanswered
		}
	}
	return v
}

// followGates remembers since when the gates of the moment have been closed, and has
// the rollout go back when that is too long. It returns what to wait for; nil when all
// are open.
func followGates(t *turn, at Moment, fresh time.Time) *blocker {
	r, v := t.state.Rollout, t.gates(at, fresh)
	switch {
	case v.stale != "":
		t.askGates = at
		return blocked(FreshGates, "asking gate %s", v.stale)
	case v.closed == "" && !r.Red.IsZero():
		t.rollout().Red = time.Time{}
		t.note("the gates are open again")
		return nil
	case v.closed == "":
		return nil
	case v.red && r.Red.IsZero():
		t.rollout().Red = t.now
		t.note(v.closed)
	}
	end := r.Red.Add(r.Policy.AbortAfter.D())
	returns := r.Policy.AbortAfter > 0 && !r.Red.IsZero() && v.red
	if returns && !t.now.Before(end) {
		turnRound(t, fmt.Sprintf("%s for %s: back to %s", v.closed, r.Policy.AbortAfter, r.From))
		return blocked(IsAborting, "%s; going back to %s", v.closed, t.state.Rollout.To)
	}
	for _, g := range r.Policy.Gates { // not at each look: every answer is a reason to look
		if g.Asked(at) && !t.seen.Gates[g.Name].At.After(t.now.Add(-recheck)) {
			t.askGates = at
		}
	}
	stays := ""
	if at == AtStart {
		stays = fmt.Sprintf("; until it opens all new connections go to %s, and nothing is closed", r.From)
	}
	if returns {
		return blockedUntil(end, GateClosed, "waiting: %s%s; going back at %s", v.closed, stays, clock(end))
	}
	return blocked(GateClosed, "waiting: %s%s", v.closed, stays)
}

// followStartingGates is followGates before anything moves, by answers of this phase.
func followStartingGates(t *turn) *blocker {
	return followGates(t, AtStart, latest(t.state.Rollout.Since, t.now.Add(-gatesSoaking)))
}

// followSoakingGates is followGates during a soak.
func followSoakingGates(t *turn) *blocker {
	return followGates(t, AtSoak, t.now.Add(-gatesSoaking))
}

// followStepGates is followGates before a step that may begin at StepAt.
func followStepGates(t *turn) *blocker {
	return followGates(t, AtStep, t.state.Rollout.StepAt.Add(-gatesAhead))
}

// askGatesBefore has the gates asked a moment before a step.
func askGatesBefore(t *turn, step time.Time) {
	r := t.state.Rollout
	asked := func(g Gate) bool { return g.Asked(AtStep) }
	if r.Aborting || !slices.ContainsFunc(r.Policy.Gates, asked) {
		return
	}
	ask := step.Add(-gatesAhead)
	if t.now.Before(ask) {
		t.wakeBy(ask)
		return
	}
	for _, g := range r.Policy.Gates {
		if asked(g) && t.seen.Gates[g.Name].At.Before(ask) {
			t.askGates = AtStep
		}
	}
}

// GateAnswer is what a gate said when the plan was made.
type GateAnswer struct {
	Name string `json:"name"`
	// At is when a rollout asks it; empty is at every moment.
	At         []Moment `json:"at,omitempty"`
	Open       bool     `json:"open"`
	Unanswered bool     `json:"unanswered,omitempty"`
	Text       string   `json:"text"`
}

// Answered is the plan with what its gates said, by name. A closed gate is no problem:
// the promotion waits for it, with everything as it was.
func (p Plan) Answered(said map[string]Reading) Plan {
	for _, g := range p.Policy.Gates {
		r, ok := said[g.Name]
		if !ok {
			r = Reading{Unanswered: true, Text: "gate " + g.Name + " was not asked"}
		}
		p.Gates = append(p.Gates, GateAnswer{Name: g.Name, At: g.At, Open: r.Open, Unanswered: r.Unanswered, Text: r.Text})
		switch {
		case g.Asked(AtStart) && !r.Open:
			p.Notes = append(p.Notes, fmt.Sprintf("gate %s is closed now: promote waits for it before anything moves", g.Name))
		case !g.Asked(AtStart) && !g.Asked(AtStep) && !p.Policy.soaks():
			p.Notes = append(p.Notes, fmt.Sprintf("gate %s is never asked: it belongs to soaks, and there is none", g.Name))
		}
	}
	return p
}
