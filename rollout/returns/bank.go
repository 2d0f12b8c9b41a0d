package returns

import (
	"cmp"
	"math"
	"slices"
)

// minLogLikelihood is the least log likelihood relative to the best filter's
// (e⁻¹⁵ = 3·10⁻⁷ of its weight): a filter that was wrong for long can be right again
// when clients change their ways.
const minLogLikelihood = -15

// bank is one filter for each of curves, in their order: multiple model estimation
// (D. T. Magill, IEEE Trans. Automatic Control 10 (1965) 434). Beforehand all are
// equally likely.
type bank []filter

func newBank() bank {
	b := make(bank, len(curves))
	for i, c := range curves {
		b[i] = newFilter(c)
	}
	return b
}

// whole reports whether the bank has the filters of curves and their stages.
func (b bank) whole() bool {
	for i, f := range b {
		if i >= len(curves) || len(f.Transit) != curves[i].stages {
			return false
		}
	}
	return len(b) == len(curves)
}

// weights are the probabilities of the filters, wᵢ = e^logᵢ / Σ e^log; their sum is 1.
func (b bank) weights() []float64 {
	w := make([]float64, len(b))
	total := 0.0
	for i, f := range b {
		w[i] = math.Exp(f.Log)
		total += w[i]
	}
	for i := range w {
		w[i] /= total
	}
	return w
}

// mean is the weighted mean of a value over the filters.
func (b bank) mean(of func(filter, curve) float64) (mean float64) {
	for i, w := range b.weights() {
		mean += w * of(b[i], curves[i])
	}
	return mean
}

// quantile is the least value such that filters with this part of all weight, 0 to 1,
// are not above it.
func (b bank) quantile(part float64, of func(filter, curve) float64) (value float64) {
	type weighted struct{ value, weight float64 }
	all := make([]weighted, len(b))
	for i, w := range b.weights() {
		all[i] = weighted{of(b[i], curves[i]), w}
	}
	slices.SortFunc(all, func(a, b weighted) int { return cmp.Compare(a.value, b.value) })
	for _, x := range all {
		value = x.value
		if part -= x.weight; part <= 0 {
			break
		}
	}
	return value
}

// level makes the best filter's log likelihood 0 and none less than minLogLikelihood,
// and rounds every number, which keeps what is stored short. It changes the bank.
func (b bank) level() {
	best := math.Inf(-1)
	for _, f := range b {
		best = max(best, f.Log)
	}
	for i, f := range b {
		f.Log = max(f.Log-best, minLogLikelihood)
		b[i] = f.rounded()
	}
}

// fiveDigits rounds to five significant digits, and to 0 what is nearer to it than a
// millionth.
func fiveDigits(x float64) float64 {
	if math.Abs(x) < 1e-6 {
		return 0
	}
	scale := math.Pow10(4 - int(math.Floor(math.Log10(math.Abs(x)))))
	if scale < 1 {
		return math.Round(x*scale) * math.Round(1/scale)
	}
	return math.Round(x*scale) / scale
}
