// Package spread shares the closes of a step out among instances and spaces them in
// time. It is pure arithmetic that knows neither services nor rollouts.
package spread

import (
	"cmp"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/rollout/units"
)

// Shares divides n closes among instances in proportion to what they hold, by
// largest remainder (Hamilton's method): ⌊n·heldᵢ/Σheld⌋ each, and the rest one
// by one to the largest remainders, the earlier instance first on a tie. No
// instance gets more than it holds; the sum is min(n, Σheld).
func Shares(n int, held []int) []int {
	total := 0
	for _, h := range held {
		total += h
	}
	out := make([]int, len(held))
	n = min(n, total)
	if n <= 0 {
		return out
	}
	order := make([]int, len(held))
	left := n
	for i, h := range held {
		order[i] = i
		out[i] = n * h / total
		left -= out[i]
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(n*held[b]%total, n*held[a]%total)
	})
	for _, i := range order[:left] {
		out[i]++
	}
	return out
}

// Starts spreads the fleet's closes evenly over a step. Each instance spaces its
// own share evenly, so where the first close falls decides how they interleave:
// the i-th begins at ((closes before it + ½) / n) · (every / its share). For
// equal shares the fleet's closes then come at even distances of every/n; any
// window of length every holds at most 1.004 caps.
func Starts(shares []int, every time.Duration) []time.Duration {
	n := 0
	for _, s := range shares {
		n += s
	}
	out := make([]time.Duration, len(shares))
	before := 0
	for i, s := range shares {
		if s > 0 {
			at := time.Duration((float64(before) + 0.5) / float64(n) * float64(every) / float64(s))
			out[i] = at.Truncate(time.Millisecond) // as it is ordered
		}
		before += s
	}
	return out
}

// Schedule lists when the closes of a step come, in order: the k-th of an
// instance at its start + k · every / its share, as drain.Gate does it.
func Schedule(shares []int, starts []time.Duration, every time.Duration) []time.Duration {
	var out []time.Duration
	for i, s := range shares {
		for k := range s {
			out = append(out, starts[i]+time.Duration(k)*(every/time.Duration(s)))
		}
	}
	slices.Sort(out)
	return out
}

// Delay is how much later than at the end of the last step the next has to begin
// so that no window of length every holds more than limit closes. Shares change
// from step to step, and with them the pattern of the closes; inside a step there
// are at most limit of them, so only windows across the border count: of all
// closes in order, the one limit places after another has to be every later, and
// the pause between steps more: processes are a few milliseconds early or late.
func Delay(last, next []time.Duration, limit int, every time.Duration) time.Duration {
	var d time.Duration
	for i, at := range last {
		if j := i + limit - len(last); j >= 0 && j < len(next) {
			d = max(d, at+PauseAfter(every)-next[j])
		}
	}
	return (d + time.Millisecond - 1).Truncate(time.Millisecond) // as it is ordered
}

// PauseAfter is a short pause between steps: the last close of a step is due only
// half a distance before its end, and one that comes a little late should be
// seen in the counts of the next. Without it thousands of connections left a
// few over for a step of their own.
func PauseAfter(every time.Duration) time.Duration { return min(every/100, 10*time.Millisecond) }

// Far is a time that nobody waits for: ten years. What takes longer takes that.
const Far = 10 * 365 * 24 * time.Hour

// Finish estimates when the funnel will have let held connections go, from
// one step to the last close: whole steps before the last, and all but half a
// distance of the last.
func Finish(f units.Funnel, held int) time.Duration {
	if held <= 0 {
		return 0
	}
	steps := (held + f.Close - 1) / f.Close
	if steps-1 > int(Far/f.Every.D()) {
		return Far
	}
	last := held - (steps-1)*f.Close
	return time.Duration(steps-1)*f.Every.D() + time.Duration((float64(last)-0.5)/float64(last)*float64(f.Every.D()))
}
