package sim

import "testing"

// BenchmarkScenarios is the time that ten million connections take to simulate,
// and what the rollout was like.
func BenchmarkScenarios(b *testing.B) {
	for _, s := range Scenarios {
		b.Run(s.Name, func(b *testing.B) {
			var r Report
			for b.Loop() {
				r = s.Run(Full)
			}
			for _, f := range r.Faults {
				b.Error(f)
			}
			b.ReportMetric(float64(r.Peak)/float64(r.Cap), "peak/cap")
			b.ReportMetric(float64(r.Out)/float64(r.Cap), "out/cap")
			b.ReportMetric(r.Fill, "fill")
			b.ReportMetric(r.Mean, "closes/client")
			b.ReportMetric(r.Took.Seconds(), "virtual-s")
		})
	}
}
