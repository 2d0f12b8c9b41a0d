package policy

import (
	"github.com/sluice-proxy/sluice/rollout/units"
)

// Overrides are the parts of a policy that an operator sets for one promotion;
// nil leaves the policy's value.
type Overrides struct {
	Close  *int            `json:"close,omitempty"`
	Every  *units.Duration `json:"every,omitempty"`
	Grace  *units.Duration `json:"grace,omitempty"`
	Canary *units.Share    `json:"canary,omitempty"`
	Soak   *units.Duration `json:"soak,omitempty"`
	Window *units.Window   `json:"window,omitempty"`
	// Stagger is how many old instances drain at a time, StaggerSoak the wait
	// between two batches.
	Stagger     *units.Portion  `json:"stagger,omitempty"`
	StaggerSoak *units.Duration `json:"stagger_soak,omitempty"`
	Deadline    *units.Duration `json:"deadline,omitempty"`
}

// Over returns the policy with the overrides laid over it.
func (o Overrides) Over(p Policy) Policy {
	set(&p.Funnel.Close, o.Close)
	set(&p.Funnel.Every, o.Every)
	set(&p.Grace, o.Grace)
	set(&p.Canary, o.Canary)
	set(&p.Soak, o.Soak)
	set(&p.Window, o.Window)
	set(&p.Stagger.Instances, o.Stagger)
	set(&p.Stagger.Soak, o.StaggerSoak)
	set(&p.Deadline, o.Deadline)
	return p
}

func set[T any](field *T, v *T) {
	if v != nil {
		*field = *v
	}
}
