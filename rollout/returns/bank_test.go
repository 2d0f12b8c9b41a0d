package returns

import "testing"

func TestQuantile(t *testing.T) {
	b := newBank()
	byMean := func(_ filter, c curve) float64 { return c.mean }
	for i := range b {
		b[i].Log = -1e9 // no weight
	}
	b[5].Log, b[10].Log, b[20].Log = 0, 0, 0 // a third each
	for part, i := range map[float64]int{0.3: 5, 0.5: 10, 0.7: 20, 0.99: 20} {
		if got := b.quantile(part, byMean); got != curves[i].mean {
			t.Errorf("quantile %v is %v, want %v", part, got, curves[i].mean)
		}
	}
	if got, want := b.mean(byMean), (curves[5].mean+curves[10].mean+curves[20].mean)/3; !near(got, want) {
		t.Errorf("the mean is %v, want %v", got, want)
	}
	b.level()
	for i, f := range b {
		if want := map[bool]float64{true: 0, false: minLogLikelihood}[i == 5 || i == 10 || i == 20]; f.Log != want {
			t.Errorf("filter %d has a log likelihood of %v, want %v", i, f.Log, want)
		}
	}
}

func TestFiveDigits(t *testing.T) {
	for x, want := range map[float64]float64{
		0: 0, 9e-7: 0, -9e-7: 0, 1.234567e-5: 1.2346e-5, 0.1234567: 0.12346, -1.5: -1.5,
		99999.4: 99999, 999996: 1e6, 1234567: 1234600,
	} {
		if got := fiveDigits(x); got != want {
			t.Errorf("%v is rounded to %v, want %v", x, got, want)
		}
	}
}
