package api

import (
	"cmp"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
)

func lookRollout(v rollout.View, s Status, outlook rollout.Outlook, now time.Time) *Rollout {
	r := v.State.Rollout
	out := &Rollout{
		ID: r.ID, From: r.From, To: r.To, Phase: r.Phase, Aborting: r.Aborting, Forced: r.Forced,
		Started: r.Started, Since: r.Since, Policy: r.Policy, Step: r.Step, Total: r.Total,
		Pace:   Pace{Close: outlook.Pace, Why: outlook.Why},
		Alarm:  rollout.Alarm(v.State, v.Seen, now),
		Window: outlook.Window, Batch: r.Batch, Spill: r.Spill,
		Gates: lookGates(r.Policy, v.Seen), Hooks: lookHooks(v),
		LeftBehind: append([]string{}, r.LeftBehind...),
		Events:     append([]state.Event{}, r.Events...),
	}
	moved := rollout.Count(v.State, v.Seen, now)
	out.Evicted, out.Lost, out.Exact = moved.Evicted, moved.Lost, moved.Exact
	if moved.Known {
		out.Returned, out.Outstanding = new(moved.Returned), new(uint64(moved.Outstanding))
	}
	if moved.Exact {
		out.NeverBack = new(uint64(moved.NeverBack))
	}
	out.AtLeast = uint64(moved.AtLeast)
	if r.Phase == state.Draining && !r.Paused && !r.StepAt.IsZero() {
		out.NextStepAt = new(r.StepAt)
	}
	for _, i := range s.Instances {
		if i.Old {
			out.Asked += i.Asked
		}
		out.Batches = max(out.Batches, i.Batch, r.Batch)
	}
	out.Held = oldHeld(s.Instances)
	out.ETA = eta{v: v, s: s, moved: moved, outlook: outlook, now: now}.at()
	return out
}

// oldHeld is what the old side holds; nil when one of its instances cannot tell.
func oldHeld(instances []Instance) *int {
	held := new(0)
	for _, i := range instances {
		switch {
		case !i.Old:
		case i.Held == nil:
			return nil
		default:
			*held += *i.Held
		}
	}
	return held
}

func lookGates(p policy.Policy, seen observed.Seen) []Gate {
	all := []Gate{}
	for _, g := range p.Gates {
		out := Gate{Name: g.Name}
		if x := seen.Gates[g.Name]; !x.At.IsZero() {
			out.Open, out.Unanswered, out.Text, out.At = &x.Open, x.Unanswered, x.Text, &x.At
		}
		all = append(all, out)
	}
	return all
}

func lookHooks(v rollout.View) []Hook {
	all := []Hook{}
	for key, m := range v.State.Members {
		if m.Hooked == 0 {
			continue
		}
		out := Hook{Instance: m.ID, Attempt: m.Hooked, Since: m.HookedAt}
		if run := v.Seen.Hooks[key]; run.Rollout == v.State.Rollout.ID && run.Attempt == m.Hooked && run.Done {
			out.Ended, out.Error = &run.At, run.Err
		}
		all = append(all, out)
	}
	slices.SortFunc(all, func(a, b Hook) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Instance, b.Instance))
	})
	return all
}
