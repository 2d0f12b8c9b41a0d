package envoy

import (
	"math/rand/v2"
	"testing"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/envoy/edge/edgetest"
	"github.com/sluice-proxy/sluice/rollout/desired"
)

// wishesFor is a wish for each service of a configuration.
func wishesFor(c edge.Config) desired.Wishes {
	w := desired.Wishes{}
	for _, s := range c.Services {
		w[s.Name] = wish(5_000, 5_000, []desired.Endpoint{{ID: "1", Addr: addr("10.0.0.1:80")}}, []desired.Endpoint{{ID: "2", Addr: addr("10.0.0.2:80")}})
	}
	return w
}

// What breaks no rule is built whole and passes the guard. Of what does, exactly
// the services that a fault names are left out, and the rest passes.
func FuzzRules(f *testing.F) {
	for seed := range uint64(300) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 13))
		c := edgetest.Random(r, 3, 8, 4+r.IntN(40))
		at := map[discovery.Service]bool{}
		for _, fault := range c.Check() {
			for _, s := range fault.Services {
				at[s] = true
			}
		}
		rs, errs := Build(c, wishesFor(c))
		for name := range wishesFor(c) {
			if (errs[name] != nil) != at[name] {
				t.Errorf("service %q: built: %v; faults: %v\n%+v", name, errs[name], c.Check(), c)
			}
		}
		if refusals := Safe(nil, rs, May{}); len(refusals) > 0 {
			t.Errorf("the guard refuses it: %v\n%+v", refusals, c)
		}
		encoded(t, rs)
	})
}
