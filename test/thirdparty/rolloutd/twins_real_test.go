//go:build real

package rolloutd_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// TestRealTwins: two Envoys with one node id, as from a copied bootstrap. Each is told of a
// promotion and has to acknowledge it, and each counts what it carries.
func TestRealTwins(t *testing.T) {
	t.Parallel()
	w := start(t, plan{chats: 1, policy: halfPolicy})
	twins := []*realEnvoy{}
	for range 2 {
		twins = append(twins, w.startEdge(fleet.EnvoyOptions{Node: "edge-1", XDS: w.ctl.XDS, Dir: t.TempDir()}))
	}
	w.await(chat, "both to be told apart", func(st api.Status) bool { return st.Proxies.Connected == 2 && st.Proxies.Confirmed == 2 })
	w.until("both to report", func() error {
		all, err := w.api.Proxies(w.ctx)
		w.must(err)
		for _, x := range all {
			if x.Contested || len(x.Twins) != 1 || x.Reports.Loads == nil || x.Reports.Counters == nil || x.Reports.Silent {
				return fmt.Errorf("%+v", x)
			}
		}
		return nil
	})
	c := w.gather(40)
	c.on(chat, discovery.Blue)
	for _, s := range []discovery.Service{chat, line} {
		r := w.done(s, w.promote(s, api.Promotion{Target: "green"}))
		if slices.ContainsFunc(r.LeftBehind, func(who string) bool { return strings.HasPrefix(who, "proxy") }) {
			t.Errorf("%s left %v behind", s, r.LeftBehind)
		}
	}
	c.on(chat, discovery.Green)
	for i, e := range twins {
		if dump := w.page(e.admin, "/config_dump?resource=dynamic_route_configs"); !strings.Contains(strings.Join(strings.Fields(dump), ""), `"name":"chat-green","weight":10000`) {
			t.Errorf("twin %d routes %s", i, dump)
		}
	}
}

// TestRealSeparateStreams: an Envoy with streams of their own for listeners and clusters,
// beside the aggregated one that brings the rest, is one proxy.
func TestRealSeparateStreams(t *testing.T) {
	t.Parallel()
	w := start(t, plan{chats: 1, policy: halfPolicy})
	const ads, own = "    ads: {}\n    resource_api_version: V3\n    initial_fetch_timeout: 5s\n",
		"    api_config_source: {api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: sluice_xds}}]}\n    resource_api_version: V3\n"
	w.startEdge(fleet.EnvoyOptions{Node: "edge-1", XDS: w.ctl.XDS, Dir: w.dir, Edit: func(bootstrap string) string {
		if strings.Count(bootstrap, ads) != 2 {
			t.Fatalf("the bootstrap is\n%s", bootstrap)
		}
		return strings.ReplaceAll(bootstrap, ads, own)
	}})
	c := w.gather(20)
	c.on(chat, discovery.Blue)
	w.done(chat, w.promote(chat, api.Promotion{Target: "green"}))
	c.on(chat, discovery.Green)
	all, err := w.api.Proxies(w.ctx)
	w.must(err)
	if len(all) != 1 || all[0].Contested || len(all[0].Holds) < 4 {
		t.Errorf("the proxies are %+v", all)
	}
}
