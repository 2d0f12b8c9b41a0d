package envoy

import (
	"maps"
	"strings"
	"testing"

	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/desired"
)

// What a limit is at one proxy: rounded up, never 0, and left out where there
// is none.
func TestLimits(t *testing.T) {
	c := edge.Config{Listeners: []edge.Listener{{Name: "web", Address: addr("127.0.0.1:80")}, {Name: "raw", Address: addr("127.0.0.1:81")}},
		Services: []edge.Service{{Name: "a-b", Listener: "web"}, {Name: "line", Listener: "raw", Protocol: edge.TCP}}}
	for _, x := range []struct {
		limit, proxies, want int // 0: no key
	}{
		{100, 1, 100}, {100, 0, 100}, {100, 3, 34}, {1, 1000, 1}, {0, 1, 0}, {999_999, 1, 999_999}, {1_000_000, 1, 0}, {1 << 62, 3, 0}, {10_000_000, 20, 500_000},
	} {
		w := wish(10_000, 0, nil, nil)
		w.Limits, w.Proxies = map[discovery.Colour]int{"blue": x.limit}, x.proxies
		rs, errs := Build(c, desired.Wishes{"a-b": w, "line": w})
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		if refused := Safe(nil, rs, May{}); len(refused) > 0 {
			t.Error(refused)
		}
		want := map[string]int{}
		if x.want > 0 {
			want["circuit_breakers.a-b-blue.default.max_requests"], want["circuit_breakers.line-blue.default.max_connections"] = x.want, x.want
		}
		got := map[string]int{}
		for key, v := range set(rs).get(RuntimeType, RuntimeName).(*runtimev3.Runtime).Layer.Fields {
			got[key] = int(v.GetNumberValue())
		}
		if !maps.Equal(got, want) {
			t.Errorf("%+v: %v, want %v", x, got, want)
		}
	}
}

// A bad limit is its own service's fault, and the others keep theirs.
func TestBadLimits(t *testing.T) {
	c := edge.Config{Listeners: []edge.Listener{{Name: "web", Address: addr("127.0.0.1:80")}},
		Services: []edge.Service{{Name: "bad", Listener: "web", Prefix: "/bad"}, {Name: "good", Listener: "web"}}}
	good := wish(10_000, 0, nil, nil)
	good.Limits = map[discovery.Colour]int{"blue": 5}
	for want, spoil := range map[string]func(*desired.Wish){
		"the limit of green is -1": func(w *desired.Wish) { w.Limits = map[discovery.Colour]int{"green": -1} },
		"a limit names no colour":  func(w *desired.Wish) { w.Limits = map[discovery.Colour]int{"red": 1} },
		"-2 proxies share":         func(w *desired.Wish) { w.Proxies = -2 },
	} {
		bad := wish(10_000, 0, nil, nil)
		spoil(&bad)
		rs, errs := Build(c, desired.Wishes{"bad": bad, "good": good})
		if len(errs) != 1 || errs["bad"] == nil || !strings.Contains(errs["bad"].Error(), want) {
			t.Errorf("%v, want %q", errs, want)
		}
		if n := len(set(rs).limits()); n != 1 {
			t.Errorf("%d limits are left, want that of good", n)
		}
	}
	// Should a builder ever make one, the guard names the service.
	rs, _ := Build(c, desired.Wishes{"bad": good, "good": good})
	set(rs).limits()["circuit_breakers.bad-blue.default.max_requests"].Reset()
	if refused := Safe(nil, rs, May{}); len(refused) != 1 || refused[0].Rule != LimitUnfit || refused[0].Service != "bad" {
		t.Errorf("%v", refused)
	}
}
