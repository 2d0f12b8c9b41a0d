package outside

import (
	"math"
	"strconv"

	"github.com/prometheus/common/model"

	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
)

func unanswered(why string) observed.Reading { return observed.Reading{Unanswered: true, Text: why} }

// judge compares an answer with the gate's bounds: there has to be a value, and
// every one has to be below Below and above Above. Without a value that breaks a
// bound NaN is no answer. Text is about the value that is farthest out, or nearest
// to it. Pure.
func judge(gate policy.Gate, answer model.Value) observed.Reading {
	var samples []*model.Sample
	switch v := answer.(type) {
	case model.Vector:
		samples = v
	case *model.Scalar:
		samples = []*model.Sample{{Value: v.Value}}
	default:
		return unanswered("the query has to answer a vector or a scalar, and does not")
	}
	switch {
	case gate.Below == nil && gate.Above == nil:
		return unanswered("it has no bound")
	case len(samples) == 0:
		return unanswered("the query has no result")
	}
	var worst, blank *model.Sample
	for _, s := range samples {
		switch {
		case s == nil || s.Histogram != nil:
			return unanswered("the query answers with histograms; ask for one of their values")
		case math.IsNaN(float64(s.Value)):
			blank = s
		case worst == nil || margin(gate, s) < margin(gate, worst):
			worst = s
		}
	}
	broken := worst != nil && margin(gate, worst) <= 0
	r := observed.Reading{Open: !broken && blank == nil, Unanswered: !broken && blank != nil}
	if r.Unanswered {
		worst = blank
	}
	of := ""
	if len(samples) > 1 {
		of = " of " + plain(worst.Metric.String())
	}
	r.Text = relation(gate, float64(worst.Value), of)
	return r
}

// margin is how far a value is inside the bounds: above 0 where it keeps them.
func margin(gate policy.Gate, s *model.Sample) float64 {
	by, v := math.Inf(1), float64(s.Value)
	if gate.Below != nil {
		by = min(by, *gate.Below-v)
	}
	if gate.Above != nil {
		by = min(by, v-*gate.Above)
	}
	return by
}

// relation says which bound the value breaks, or that it keeps them.
func relation(gate policy.Gate, v float64, of string) string {
	is := func(how string, bound float64) string {
		return number(v, bound) + of + " is " + how + " " + number(bound, v)
	}
	switch below, above := gate.Below, gate.Above; {
	case below != nil && !(v < *below):
		return is("not below", *below)
	case above != nil && !(v > *above):
		return is("not above", *above)
	case above == nil:
		return is("below", *below)
	case below == nil:
		return is("above", *above)
	default:
		return is("above", *above) + " and below " + number(*below, v)
	}
}

// number is short, unless that makes it look like the other one.
func number(v, other float64) string {
	short := func(f float64) string { return strconv.FormatFloat(f, 'g', 4, 64) }
	if v != other && short(v) == short(other) {
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	return short(v)
}
