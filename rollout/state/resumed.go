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
// What is remembered as past is not after now. If the clock that wrote the rollout was
// ahead, the whole rollout is moved back, so that no time has passed since the newest
// thing in it, and every wait is as long as it was then. How long ago the last step was
// ordered is not known, so it may have been now: the next comes no earlier than a whole
// step later, and the cap holds. From then on the moments are measured by now's
// monotonic clock, if it has one.
func (s State) Resumed(now time.Time) State {
	ahead := time.Duration(0)
	if r := s.Rollout; r != nil {
		newest := units.Latest(r.Started, r.Since, r.Settled, r.Red, r.OrderedAt, r.Flow.At, r.Turned, r.BatchAt, r.Outstanding.At, r.Outstanding.Judged)
		for _, e := range r.Events {
			newest = units.Latest(newest, e.At)
		}
		for _, m := range r.Marks {
			newest = units.Latest(newest, m.At)
		}
		if r.Returns != nil {
			newest = units.Latest(newest, r.Returns.Seen)
		}
		ahead = max(0, newest.Sub(now))
	}
	s = s.Dated(func(at time.Time) time.Time { return now.Add(at.Sub(now) - ahead) })
	for key, m := range s.Members {
		m.Departed, m.HookedAt = bounded(m.Departed, now), bounded(m.HookedAt, now)
		m.Process.Heard = bounded(m.Process.Heard, now)
		s.Members[key] = m
	}
	if r := s.Rollout; r != nil && !r.OrderedAt.IsZero() {
		every := r.Policy.Funnel.Every.D()
		step := r.StepAt.Sub(r.OrderedAt) // with its delay and the pause after it
		if step < every || step > 3*every {
			step = every
		}
		r.OrderedAt, r.StepAt = now, now.Add(step)
	}
	return s
}

// bounded is at, but not after now.
func bounded(at, now time.Time) time.Time {
	if at.After(now) {
		return now
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
	moved(&r.Started, &r.Since, &r.Settled, &r.Red, &r.StepAt, &r.OrderedAt, &r.Flow.At, &r.Turned, &r.BatchAt, &r.Outstanding.At, &r.Outstanding.Judged, &r.Refusals.Since)
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
