package state

import (
	"maps"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/rollout/units"
)

// Resumed is the state as a process goes on with it that has read it from a store:
// clocks of two processes, or of one before and after it was set, need not agree.
//
// How much time has passed since the newest thing in it is not known: the clock may have been
// set meanwhile, either way. So none counts. What is remembered is moved so that the newest
// of it is now, and every wait goes on from where it was then: none is shortened by a clock.
// Only when the rollout started and its events stay where they were, if that is not after
// now: that is for people, and the deadline is theirs. How long ago the last step was ordered
// is not known either, so it may have been now: the next comes no earlier than a whole step
// later, and the cap holds. From then on the moments are measured by now's monotonic clock,
// if it has one.
func (s State) Resumed(now time.Time) State {
	newest, was := s.newest(), s.Rollout
	s = s.Dated(func(at time.Time) time.Time { return now.Add(at.Sub(newest)) })
	r := s.Rollout
	if r == nil {
		return s
	}
	ahead := max(0, newest.Sub(now))
	told := func(at time.Time) time.Time { return now.Add(at.Sub(now) - ahead) }
	r.Started = told(was.Started)
	for i := range r.Events {
		r.Events[i].At = told(was.Events[i].At)
	}
	if !r.OrderedAt.IsZero() {
		every := r.Policy.Funnel.Every.D()
		step := r.StepAt.Sub(r.OrderedAt) // with its delay and the pause after it
		if step < every || step > 3*every {
			step = every
		}
		r.OrderedAt, r.StepAt = now, now.Add(step)
	}
	return s
}

// newest is the newest moment in it, but for what is awaited and for finished rollouts.
func (s State) newest() (at time.Time) {
	for _, m := range s.Members {
		at = units.Latest(at, m.Departed, m.HookedAt, m.Process.Heard)
	}
	r := s.Rollout
	if r == nil {
		return at
	}
	at = units.Latest(at, r.Started, r.Since, r.Settled, r.Red, r.OrderedAt, r.Flow.At, r.Turned, r.BatchAt, r.Outstanding.At, r.Outstanding.Judged, r.Refusals.Since, r.Surplus)
	for _, e := range r.Events {
		at = units.Latest(at, e.At)
	}
	for _, m := range r.Marks {
		at = units.Latest(at, m.At)
	}
	if r.Returns != nil {
		at = units.Latest(at, r.Returns.Seen)
	}
	return at
}

// Dated is the state with every moment in it moved, but for the history of finished
// rollouts. A zero one stays.
func (s State) Dated(move func(time.Time) time.Time) State {
	moved := func(all ...*time.Time) {
		for _, at := range all {
			if !at.IsZero() {
				*at = move(*at)
			}
		}
	}
	s.Members = maps.Clone(s.Members)
	for key, m := range s.Members {
		moved(&m.Departed, &m.HookedAt, &m.Process.Heard)
		s.Members[key] = m
	}
	if s.Rollout == nil {
		return s
	}
	r := *s.Rollout
	s.Rollout = &r
	moved(&r.Started, &r.Since, &r.Settled, &r.Red, &r.StepAt, &r.OrderedAt, &r.Flow.At, &r.Turned, &r.BatchAt, &r.Outstanding.At, &r.Outstanding.Judged, &r.Refusals.Since, &r.Surplus)
	r.Events, r.Marks = slices.Clone(r.Events), slices.Clone(r.Marks)
	for i := range r.Events {
		moved(&r.Events[i].At)
	}
	for i := range r.Marks {
		moved(&r.Marks[i].At)
	}
	if r.Returns != nil {
		r.Returns = new(r.Returns.Dated(move))
	}
	return s
}
