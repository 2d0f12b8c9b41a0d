package envoy

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/desired"
)

// BenchmarkBuild is what one change costs with 10 services of 100 instances:
// building everything and passing the guard.
func BenchmarkBuild(b *testing.B) {
	c := edge.Config{Listeners: []edge.Listener{{Name: "web", Address: addr("127.0.0.1:80")}}}
	w := desired.Wishes{}
	for i := range 10 {
		s := edge.Service{Name: discovery.Service(fmt.Sprintf("s%d", i)), Listener: "web", Prefix: fmt.Sprintf("/s%d", i)}
		c.Services = append(c.Services, s)
		wish := wish(5000, 5000, nil, nil)
		for j := range 100 {
			at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), byte(j + 1)}), 80)
			colour := discovery.Colours[j%2]
			wish.Endpoints[colour] = append(wish.Endpoints[colour], desired.Endpoint{Addr: at})
		}
		w[s.Name] = wish
	}
	published, _ := Build(c, w)
	b.ReportAllocs()
	for b.Loop() {
		next, errs := Build(c, w)
		if refusals := Safe(published, next, May{}); len(errs)+len(refusals) > 0 {
			b.Fatal(errs, refusals)
		}
	}
}
