package envoy

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// All proxies together let the rate through, but for 2 % less and nothing more,
// and never a burst of more than a tenth of a second's worth.
func TestBucket(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	try := func(rate units.Rate, proxies int) {
		b := routed{edge.Service{StormGuard: rate}, desired.Wish{Proxies: proxies}}.bucket()
		n, every := max(1, proxies), b.FillInterval.AsDuration()
		whole := float64(b.TokensPerFill.Value) * float64(n) / every.Seconds()
		switch {
		case whole > float64(rate)*1.000001 || whole < float64(rate)*0.98:
			t.Errorf("%s over %d proxies is %f/s in all", rate, proxies, whole)
		case every < 50*time.Millisecond || every%time.Millisecond != 0:
			t.Errorf("%s over %d proxies fills every %s, which Envoy refuses or rounds", rate, proxies, every)
		case b.MaxTokens < 1 || b.MaxTokens > 1 && int(b.MaxTokens)*10*n > int(rate) || b.MaxTokens != b.TokensPerFill.Value:
			t.Errorf("%s over %d proxies holds %d and fills by %d", rate, proxies, b.MaxTokens, b.TokensPerFill.Value)
		}
	}
	for _, rate := range []units.Rate{1, 2, 3, 7, 10, 19, 20, 50, 99, 500, 1999, edge.MaxRate} {
		for _, proxies := range []int{0, 1, 2, 3, 7, 100, 5000} {
			try(rate, proxies)
		}
	}
	for range 10_000 {
		try(1+units.Rate(r.IntN(1<<r.IntN(23))), 1+r.IntN(1<<r.IntN(12)))
	}
}
