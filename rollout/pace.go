package rollout

import (
	"cmp"
	"slices"
	"time"
)

// shares divides n closes among instances in proportion to what they hold, by
// largest remainder (Hamilton's method): ⌊n·heldᵢ/Σheld⌋ each, and the rest one
// by one to the largest remainders, the earlier instance first on a tie. No
// instance gets more than it holds; the sum is min(n, Σheld).
func shares(n int, held []int) []int {
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

// starts spreads the fleet's closes evenly over a step. Each instance spaces its
// own share evenly, so where the first close falls decides how they interleave:
// the i-th begins at ((closes before it + ½) / n) · (every / its share). For
// equal shares the fleet's closes then come at even distances of every/n; any
// window of length every holds at most 1.004 caps (DESIGN.md, "The pace").
func starts(shares []int, every time.Duration) []time.Duration {
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

// schedule lists when the closes of a step come, in order: the k-th of an
// instance at its start + k · every / its share, as drain.Gate does it.
func schedule(shares []int, starts []time.Duration, every time.Duration) []time.Duration {
	var out []time.Duration
	for i, s := range shares {
		for k := range s {
			out = append(out, starts[i]+time.Duration(k)*(every/time.Duration(s)))
		}
	}
	slices.Sort(out)
	return out
}

// delay is how much later than at the end of the last step the next has to begin
// so that no window of length every holds more than limit closes. Shares change
// from step to step, and with them the pattern of the closes; inside a step there
// are at most limit of them, so only windows across the border count: of all
// closes in order, the one limit places after another has to be every later, and
// the pause between steps more: processes are a few milliseconds early or late.
func delay(last, next []time.Duration, limit int, every time.Duration) time.Duration {
	var d time.Duration
	for i, at := range last {
		if j := i + limit - len(last); j >= 0 && j < len(next) {
			d = max(d, at+pauseAfter(every)-next[j])
		}
	}
	return (d + time.Millisecond - 1).Truncate(time.Millisecond) // as it is ordered
}
