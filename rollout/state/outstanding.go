package state

import (
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/rollout/returns"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// Outstanding is how many of those that were let go are on their way, by what is certain: it is
// what the automatic window bounds. Where returning clients are counted, it is that
// count. Elsewhere whatever the target accepts counts as one that is back: of those that
// were let go within any time, no more can be. That no client comes back shows at once,
// then, and nothing else does.
type Outstanding struct {
	// Back is how many of all that were let go count as back, and Seen how many
	// connections the target had accepted when that was reckoned.
	Back uint64 `json:"back,omitempty"`
	Seen uint64 `json:"seen,omitempty"`
	// Aged is how many of Back are those that are no longer waited for.
	Aged uint64 `json:"aged,omitempty"`
	// Late is how many died with an instance, or had gone before the rollout: nobody
	// knows since when they are back, so they count as back.
	Late uint64 `json:"late,omitempty"`
	// Spare is the least by which Back exceeded all that were let go since At: what the
	// target accepted and nobody was let go for. It is soon taken off.
	Spare uint64    `json:"spare,omitempty"`
	At    time.Time `json:"at,omitzero"`
	// Slowest is the longest that it took until as many were back as had been let go,
	// but for one in a hundred. It is judged once a step, by what Back and all that were
	// let go were the last time, at Judged.
	Slowest    units.Duration `json:"slowest,omitempty"`
	Judged     time.Time      `json:"judged,omitzero"`
	JudgedBack uint64         `json:"judged_back,omitempty"`
	JudgedGone uint64         `json:"judged_gone,omitempty"`
}

// spareFor is how long what the target accepted may be for clients whose going was not
// told yet.
const spareFor = 3 * time.Second

// Away is how many of so many are on their way.
func (o Outstanding) Away(gone uint64) int { return int(gone - min(gone, o.Back)) }

// With reckons with what the target accepted by now, when so many had gone.
func (o Outstanding) With(gone, accepted uint64, now time.Time) Outstanding {
	o.Back, o.Seen = o.Back+accepted-min(accepted, o.Seen), accepted
	spare := o.Back - min(o.Back, gone)
	switch o.Spare = min(o.Spare, spare); {
	case o.At.IsZero():
		o.Spare, o.At = spare, now
	case now.Sub(o.At) >= spareFor:
		o.Back -= o.Spare
		o.Spare, o.At = spare-o.Spare, now
	}
	return o
}

// Judge is what is outstanding with how long the slowest took, if most of as many as were let
// go since the last time came back, and most of those that were let go while they were on
// their way: else it is not known how long the others will take, or whether they come.
func (o Outstanding) Judge(gone uint64, marks []Mark, now time.Time) Outstanding {
	came, went := o.Back-min(o.Back, o.JudgedBack), gone-min(gone, o.JudgedGone)
	i := slices.IndexFunc(marks, func(m Mark) bool { return m.Gone > o.Back+gone/100 })
	if came > 0 && 3*came >= 2*went && i >= 0 {
		if took := now.Sub(marks[i].At); o.balanced(marks, now, took) {
			o.Slowest = max(o.Slowest, units.Duration(took))
		}
	}
	o.Judged, o.JudgedBack, o.JudgedGone = now, o.Back, gone
	return o
}

// balanced reports whether of those that were let go in the time before the last one, as long
// as it, most came back in that: three in four.
func (o Outstanding) balanced(marks []Mark, now time.Time, last time.Duration) bool {
	by := func(at time.Time) (m Mark) {
		for _, next := range marks {
			if next.At.After(at) {
				break
			}
			m = next
		}
		return m
	}
	from, before := by(now.Add(-last)), by(now.Add(-2*last))
	back := o.Back - min(o.Back, o.Aged)
	return 4*(back-min(back, from.Back)) >= 3*(from.Gone-before.Gone)
}

// Mark is how many clients had been let go or lost by a moment, and how many of them counted
// as back, without those that were no longer waited for.
type Mark struct {
	returns.Mark
	Back uint64 `json:"back,omitempty"`
}
