package rollout

import (
	"fmt"
	"slices"
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
