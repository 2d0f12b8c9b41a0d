package state

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// Check reports a state that no transition can have made: it states the invariants
// that the fields' comments state.
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
	case !slices.IsSorted(s.Proxies):
		return fmt.Errorf("state of %s: its proxies are not sorted", s.Service)
	}
	for node := range s.Machines {
		if _, known := slices.BinarySearch(s.Proxies, node); !known {
			return fmt.Errorf("state of %s: it knows the machine of %s, which is none of its proxies", s.Service, node)
		}
	}
	for id, m := range s.Members {
		if err := m.check(id); err != nil {
			return fmt.Errorf("state of %s: member %s %w", s.Service, id, err)
		}
	}
	if s.Rollout == nil {
		return nil
	}
	if s.Unsettled {
		return fmt.Errorf("state of %s: rollout %s runs while the live colour is not known", s.Service, s.Rollout.ID)
	}
	return s.checkRollout()
}

func (m Member) check(key discovery.InstanceID) error {
	switch {
	case m.Colour != discovery.Blue && m.Colour != discovery.Green:
		return fmt.Errorf("has colour %q", m.Colour)
	case key != m.ID && m.Departed.IsZero():
		return errors.New("is there under a former name")
	case m.Ceiling != nil && *m.Ceiling < 0:
		return fmt.Errorf("has ceiling %d", *m.Ceiling)
	case m.Notice < 0:
		return fmt.Errorf("has a notice of %s", m.Notice)
	case m.Share < 0 || m.Start < 0:
		return fmt.Errorf("has share %d from %s on", m.Share, m.Start)
	case !m.Counted && (m.Totals != observed.Totals{} || m.Process != Process{}), m.Lost < 0, m.Process.Held < 0:
		return fmt.Errorf("has counts %+v", m.Counts)
	case m.Hooked < 0, m.Hooked == 0 && !m.HookedAt.IsZero():
		return fmt.Errorf("has %d calls of its hook, the last at %s", m.Hooked, m.HookedAt)
	}
	return nil
}

func (s State) checkRollout() error {
	r := s.Rollout
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
	for id, m := range s.Members {
		if m.Turn < 0 || m.Turn > r.Batch {
			return fmt.Errorf("state of %s: member %s has its turn in batch %d of %d", s.Service, id, m.Turn, r.Batch)
		}
	}
	if err := r.check(); err != nil {
		return fmt.Errorf("state of %s: rollout %s has %w", s.Service, r.ID, err)
	}
	return nil
}

func (r *Rollout) check() error {
	switch {
	case r.Weight < 0 || r.Weight > units.Whole:
		return fmt.Errorf("weight %s", r.Weight)
	case r.Given.Close < 0 || r.Given.Close > r.Cap || r.Pace.Limit < 0:
		return fmt.Errorf("a step of %d closes under a cap of %d and a pace of %d", r.Given.Close, r.Cap, r.Pace.Limit)
	case !slices.Contains(bases, r.Basis):
		return fmt.Errorf("clients counted by %q", r.Basis)
	case !(r.RefusedBefore >= 0) || math.IsInf(r.RefusedBefore, 0) || r.Total < 0 || r.Lost < 0 || r.Owed < 0 || r.NeverBack < 0:
		return fmt.Errorf("a toll below zero")
	case !slices.IsSortedFunc(r.Marks, func(a, b Mark) int { return cmp.Compare(a.Gone, b.Gone) }):
		return fmt.Errorf("marks that fall")
	case len(r.Events) > eventsKept || r.Omitted < 0:
		return fmt.Errorf("%d events", len(r.Events))
	}
	return nil
}
