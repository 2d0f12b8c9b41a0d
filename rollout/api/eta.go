package api

import (
	"maps"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// eta reckons when the last connection will have been evicted if nothing comes
// in between.
type eta struct {
	v       rollout.View
	s       Status
	moved   state.Moved
	outlook rollout.Outlook
	now     time.Time
}

// at is the start of the next step, plus the steps of each batch that is left at
// the pace of now, as it recovers, plus the soaks between them. While soaking it
// is the latest end. nil when the rollout is held up already or will be, or when
// it is not known how many connections are left.
func (e eta) at() *time.Time {
	r := e.v.State.Rollout
	if r.Phase == state.Soaking {
		return new(r.Since.Add(r.Policy.ReturnTimeout.D()))
	}
	left, rest := e.left()
	if left == nil || r.Paused || heldUp(e.v.Reason) || e.overflows(rest) || r.Policy.Funnel.Close < 1 {
		return nil
	}
	end := e.next()
	if speed := e.bound(); speed > 0 {
		end = end.Add(time.Duration(float64(rest) / speed * float64(time.Second)))
	} else {
		end = end.Add(time.Duration(e.steps(left)) * r.Policy.Funnel.Every.D())
	}
	if soaks := len(left) - 1; soaks > 0 && !r.Aborting {
		end = end.Add(time.Duration(soaks) * r.Policy.Stagger.Soak.D())
	}
	return &end
}

// left is what each batch that is not done will hold when the orders that are out
// are carried out, in their order, and what that is together; nil when one of the
// old instances cannot tell.
func (e eta) left() (batches []int, sum int) {
	r, held := e.v.State.Rollout, map[int]int{}
	for _, i := range e.s.Instances {
		switch {
		case !i.Old:
		case i.Held == nil:
			return nil, 0
		default:
			n := *i.Held
			if i.Ceiling != nil {
				n = min(n, *i.Ceiling)
			}
			sum += n
			if n > 0 || i.Batch > 0 && i.Batch == r.Batch && r.BatchAt.IsZero() {
				held[i.Batch] += n
			}
		}
	}
	batches = []int{}
	for _, k := range slices.Sorted(maps.Keys(held)) {
		batches = append(batches, held[k])
	}
	return batches, sum
}

// next is when the next step begins.
func (e eta) next() time.Time {
	r := e.v.State.Rollout
	p := r.Policy
	switch {
	case r.Phase == state.Opening:
		return e.now.Add(p.Soak.D() + p.Grace.D())
	case r.Phase == state.Shifting:
		return e.later(r.Settled, p.Soak.D()).Add(p.Grace.D())
	case r.Phase == state.Confirming:
		return e.now.Add(p.Grace.D())
	case !r.BatchAt.IsZero() && !r.Aborting:
		return e.later(r.BatchAt, p.Stagger.Soak.D())
	case r.Step == 0:
		return e.later(r.Settled, p.Grace.D())
	}
	return e.later(r.StepAt, 0)
}

// steps is how many it takes when the pace is raised by a tenth of the limit with
// each. A window that is smaller is taken to let a whole window go each step.
func (e eta) steps(batches []int) int {
	steps, pace, limit := 0, e.outlook.Pace, max(1, e.outlook.Limit)
	most := func() int {
		if w := e.v.State.Rollout.Policy.Window; w > 0 {
			return min(pace, int(w))
		}
		return pace
	}
	for _, rest := range batches {
		for rest > 0 && pace < limit {
			pace = min(limit, pace+max(1, limit/10))
			rest -= most()
			steps++
		}
		steps += (max(0, rest) + most() - 1) / most()
	}
	return steps
}

// bound is how many connections went each second so far, when it is the window
// that holds the funnel back: then clients go as fast as others return. 0 else.
func (e eta) bound() float64 {
	r := e.v.State.Rollout
	held := oldHeld(e.s.Instances)
	if r.Policy.Window <= 0 || r.Phase != state.Draining || held == nil || e.moved.Outstanding+min(e.outlook.Pace, int(r.Policy.Window)) <= int(r.Policy.Window) {
		return 0
	}
	return float64(r.Total-*held) / max(1, e.now.Sub(r.Settled.Add(r.Policy.Grace.D())).Seconds())
}

// overflows reports whether the target has no room for all that is
// left and on its way.
func (e eta) overflows(rest int) bool {
	r := e.v.State.Rollout
	for _, c := range e.s.Colours {
		if c.Colour == r.To && c.Room != nil {
			return c.Room.Held+e.moved.Outstanding+rest > c.Room.Capacity
		}
	}
	return false
}

// heldUp reports whether the rollout waits for something that has no known end.
func heldUp(r rollout.Reason) bool {
	switch r.Code {
	case rollout.Settling, rollout.InGrace, rollout.FreshCounts, rollout.FreshGates, rollout.Unconfirmed, rollout.TargetClosed, rollout.GateOpen,
		rollout.Learning, rollout.WindowFull, rollout.BatchSoak:
		return false
	}
	return r.Waiting()
}

// later is start + d, or now + d when it has not started, and never before now.
func (e eta) later(start time.Time, d time.Duration) time.Time {
	if start.IsZero() {
		return e.now.Add(d)
	}
	if at := start.Add(d); at.After(e.now) {
		return at
	}
	return e.now
}
