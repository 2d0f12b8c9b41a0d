package outside

import (
	"math"
	"testing"

	"github.com/prometheus/common/model"

	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
)

// NaN, as of a rate without traffic, keeps a gate closed, but turns nothing back;
// a value that breaks a bound does, whatever else there is.
func TestJudgeNaN(t *testing.T) {
	nan, below, above := math.NaN(), policy.Gate{Below: new(1.0)}, policy.Gate{Above: new(1.0)}
	for _, c := range []struct {
		gate   policy.Gate
		values []float64
		want   observed.Reading
	}{
		{below, []float64{nan}, observed.Reading{Unanswered: true, Text: "NaN is not below 1"}},
		{above, []float64{2, nan}, observed.Reading{Unanswered: true, Text: "NaN of {} is not above 1"}},
		{below, []float64{nan, 3, 0}, observed.Reading{Text: "3 of {} is not below 1"}},
		{above, []float64{0.5, math.Inf(-1), nan}, observed.Reading{Text: "-Inf of {} is not above 1"}},
		{below, []float64{1}, observed.Reading{Text: "1 is not below 1"}},
		{below, []float64{0.5, 0.25}, observed.Reading{Open: true, Text: "0.5 of {} is below 1"}},
		{policy.Gate{}, []float64{1}, observed.Reading{Unanswered: true, Text: "it has no bound"}},
	} {
		var v model.Vector
		for _, value := range c.values {
			v = append(v, &model.Sample{Value: model.SampleValue(value)})
		}
		if got := judge(c.gate, v); got != c.want {
			t.Errorf("%v: %+v, want %+v", c.values, got, c.want)
		}
	}
}
