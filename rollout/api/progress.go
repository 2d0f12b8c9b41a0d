package api

import (
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
)

func lookRollout(v rollout.View, instances []Instance, now time.Time) *Rollout {
	r := v.State.Rollout
	out := &Rollout{
		ID: r.ID, From: r.From, To: r.To, Phase: r.Phase, Aborting: r.Aborting, Forced: r.Forced,
		Started: r.Started, Since: r.Since, Policy: r.Policy, Step: r.Step, Total: r.Total,
		LeftBehind: append([]string{}, r.LeftBehind...),
		Events:     append([]rollout.Event{}, r.Events...),
	}
	moved := rollout.Count(v.State, v.Seen, now)
	out.Evicted, out.Lost = moved.Evicted, moved.Lost
	if moved.Exact {
		out.Returned = new(moved.Returned)
	}
	if moved.Known {
		out.Outstanding, out.NeverBack = new(uint64(moved.Outstanding)), new(uint64(moved.NeverBack))
	}
	out.Exact, out.Pace = moved.Exact, r.Pace
	out.Alarm = rollout.Alarm(v.State, v.Seen, now)
	out.Batch, out.Spill = r.Batch, r.Spill
	if r.Phase == rollout.Draining && !r.Paused && !r.StepAt.IsZero() {
		out.NextStepAt = new(r.StepAt)
	}
	var rest *int
	out.Held, rest = remaining(instances, r.From)
	out.ETA = eta(v, rest, now)
	return out
}

// remaining is what a colour holds now, and what it will hold when the orders
// that are out are carried out; both nil when one of its instances cannot tell.
func remaining(instances []Instance, c discovery.Colour) (now, rest *int) {
	now, rest = new(0), new(0)
	for _, i := range instances {
		switch {
		case i.Colour != c:
		case i.Held == nil:
			return nil, nil
		case i.Ceiling != nil:
			*now += *i.Held
			*rest += min(*i.Held, *i.Ceiling)
		default:
			*now += *i.Held
			*rest += *i.Held
		}
	}
	return now, rest
}

// eta is when the last connection will have been evicted if nothing holds the
// rollout up: the start of the next step plus ⌈rest / close⌉ steps. While
// soaking it is the latest end. nil when the rollout is held up already, or when
// it is not known how many connections are left.
func eta(v rollout.View, rest *int, now time.Time) *time.Time {
	r := v.State.Rollout
	p := r.Policy
	if r.Phase == rollout.Soaking {
		return new(r.Since.Add(p.ReturnTimeout.D()))
	}
	if rest == nil || r.Paused || heldUp(v.Reason) || p.Funnel.Close < 1 {
		return nil
	}
	next := now
	switch r.Phase {
	case rollout.Opening:
		next = now.Add(p.Soak.D() + p.Grace.D())
	case rollout.Shifting:
		next = later(now, r.Settled, p.Soak.D()).Add(p.Grace.D())
	case rollout.Confirming:
		next = now.Add(p.Grace.D())
	case rollout.Draining:
		if r.Step == 0 {
			next = later(now, r.Settled, p.Grace.D())
		}
		if r.StepAt.After(next) {
			next = r.StepAt
		}
	}
	steps := (*rest + p.Funnel.Close - 1) / p.Funnel.Close
	return new(next.Add(time.Duration(steps) * p.Funnel.Every.D()))
}

// heldUp reports whether the rollout waits for something that has no known end.
func heldUp(r rollout.Reason) bool {
	switch r.Code {
	case rollout.Settling, rollout.InGrace, rollout.FreshCounts, rollout.Unconfirmed, rollout.TargetClosed, rollout.GateOpen:
		return false
	}
	return r.Waiting()
}

// later is start + d, or now + d when it has not started, and never before now.
func later(now, start time.Time, d time.Duration) time.Time {
	if start.IsZero() {
		return now.Add(d)
	}
	if at := start.Add(d); at.After(now) {
		return at
	}
	return now
}
