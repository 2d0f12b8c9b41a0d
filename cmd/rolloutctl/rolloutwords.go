package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// about is a number of clients that may be an estimate, or is not known but has a
// least.
func about(n *uint64, exact bool, least uint64) string {
	switch {
	case n == nil && least > 0:
		return fmt.Sprintf("%d or more", least)
	case n == nil || exact:
		return number(n)
	}
	return "about " + number(n)
}

// held is what the old side holds, of what it held when the funnel started.
func held(r api.Rollout) string {
	if r.Total == 0 {
		return number(r.Held) // it has not started
	}
	return fmt.Sprintf("%s of %d", number(r.Held), r.Total)
}

// paced is the pace as it is now, beside the cap when it is below that.
func paced(r api.Rollout) string {
	f := r.Policy.Funnel
	switch n := r.Pace.Close; {
	case n > 0 && n < f.Close:
		return fmt.Sprintf("%d of %s", n, f)
	case n > f.Close:
		f.Close = n
	}
	return f.String()
}

// outstanding is how many clients are on their way, beside the window.
func outstanding(r api.Rollout) string {
	text := about(r.Outstanding, r.Exact, r.AtLeast)
	if r.Policy.Window > 0 {
		text += fmt.Sprintf(" of %d", r.Policy.Window)
	}
	return text
}

// window is the most clients that may be on their way, and whose number that is.
func window(r api.Rollout) string {
	if r.Window > 0 && r.Policy.Window == units.Auto {
		return fmt.Sprintf("%d, auto", r.Window)
	}
	return r.Policy.Window.String()
}

// losses are what only sometimes happens: connections that ended with their
// instance, and clients that are no longer waited for.
func losses(r api.Rollout) []string {
	var all []string
	if r.Lost > 0 {
		all = append(all, fmt.Sprintf("lost %d", r.Lost))
	}
	if r.NeverBack != nil && *r.NeverBack > 0 {
		all = append(all, "never back "+number(r.NeverBack))
	}
	return all
}

// batch is which batch drains; empty without stagger.
func batch(r api.Rollout) string {
	switch {
	case r.Batches == 0:
		return ""
	case r.Batch == 0:
		return fmt.Sprintf("0 of %d", r.Batches)
	}
	return fmt.Sprintf("%d of %d", r.Batch, r.Batches)
}

// inBatch names the instances of the batch that drains.
func inBatch(s api.Status) string {
	var ids []discovery.InstanceID
	for _, i := range s.Instances {
		if i.Old && i.Batch > 0 && i.Batch == s.Rollout.Batch {
			ids = append(ids, i.ID)
		}
	}
	return some(ids)
}

// some lists the first three.
func some(ids []discovery.InstanceID) string {
	const most = 3
	var all []string
	for _, id := range ids[:min(most, len(ids))] {
		all = append(all, string(id))
	}
	text := strings.Join(all, ", ")
	if over := len(ids) - most; over > 0 {
		text += fmt.Sprintf(" and %d more", over)
	}
	return text
}

// spill says where new connections go while the target is full; empty when it is
// not.
func spill(r api.Rollout) string {
	if !r.Spill {
		return ""
	}
	return fmt.Sprintf("%s is full: new connections go to the %s instances whose turn has not come", r.To, r.From)
}

// slowed is why the pace is below the cap, unless the reason has just said so.
func slowed(s api.Status) string {
	why := s.Rollout.Pace.Why
	if why == "" || strings.Contains(s.Reason.Text, why) {
		return ""
	}
	return fmt.Sprintf("at most %d every %s: %s", s.Rollout.Pace.Close, s.Rollout.Policy.Funnel.Every, why)
}

// gateFacts is one row per gate of the policy.
func gateFacts(gates []api.Gate, now time.Time) (rows [][2]string) {
	for _, g := range gates {
		text := g.Name + " was not asked yet"
		if g.Open != nil {
			text = fmt.Sprintf("%s, at %s", strings.TrimPrefix(g.Text, "gate "), moment(*g.At, now))
		}
		rows = append(rows, [2]string{"gate", text})
	}
	return rows
}

// hookFacts is one row per instance that the hook was called for.
func hookFacts(hooks []api.Hook, now time.Time) (rows [][2]string) {
	for _, h := range hooks {
		text := fmt.Sprintf("%s, attempt %d ", h.Instance, h.Attempt)
		switch {
		case h.Ended == nil:
			text += "runs since " + moment(h.Since, now)
		case h.Error != "":
			text += fmt.Sprintf("failed at %s: %s", moment(*h.Ended, now), h.Error)
		default:
			text += "was done at " + moment(*h.Ended, now)
		}
		rows = append(rows, [2]string{"hook", text})
	}
	return rows
}

// deadline is when the promotion has to be through; empty without one. Going
// back has none.
func deadline(r api.Rollout, now time.Time) string {
	if r.Policy.Deadline == 0 || r.Aborting {
		return ""
	}
	end := r.Started.Add(r.Policy.Deadline.D())
	return ahead(&end, now)
}

// filled is how much of a colour's room is taken; empty where it is not known.
func filled(room *rollout.Room) string {
	if room == nil {
		return ""
	}
	return fmt.Sprintf("%d of %d", room.Held, room.Capacity)
}
