//go:build real

package rolloutd_test

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// TestRealReplicas: an Envoy takes its configuration from one rolloutd and reports
// its load to another. The one asks the other and knows everything, by node; when
// the other is gone, the Envoy is named and its last count stays.
func TestRealReplicas(t *testing.T) {
	t.Parallel()
	w := start(t, plan{chats: 2, policy: halfPolicy})
	dir := t.TempDir()
	second, err := fleet.StartRolloutd(w.ctx, fleet.RolloutdOptions{
		Bin: programs(t), Dir: dir, Discovery: fmt.Sprintf("{file: %q}", filepath.Join(w.dir, "instances.yaml")),
		Rest: fmt.Sprintf("replicas: [%q]\n%s", "http://"+w.ctl.API.String(), w.rest),
	})
	w.must(err)
	t.Cleanup(second.Kill)
	first := w.ctl
	w.ctl = second
	w.api, err = second.Client()
	w.must(err)

	w.startEdge(fleet.EnvoyOptions{Node: "edge-1", XDS: second.XDS, Dir: w.dir, Concurrency: 2, Edit: func(bootstrap string) string {
		return w.reportTo(bootstrap, first.XDS)
	}})
	swarm, end := w.sockets(w.web, 60)
	w.until("all to be connected", func() error {
		if now := swarm.Connected(); now.Colour["blue"] != 60 {
			return errors.New(now.String())
		}
		return nil
	})
	w.counted(chat, discovery.Blue, 60)
	end()
	w.counted(chat, discovery.Blue, 0)
	_, _ = w.sockets(w.web, 40)
	st := w.counted(chat, discovery.Blue, 40)
	if missing := w.colour(st, discovery.Blue).Unreported; len(missing) > 0 {
		t.Errorf("%v are missed", missing)
	}

	first.Kill()
	w.await(chat, "the Envoy to be silent", func(st api.Status) bool {
		held, silent := 0, true
		for _, i := range st.Instances {
			if i.Colour == discovery.Blue && i.Reported != nil {
				held += i.Reported.Held
				silent = silent && slices.Equal(i.Reported.Silent, []string{"edge-1"})
			}
		}
		return held == 40 && silent
	})
	if log := second.Log(); strings.Count(log, "replica does not answer") != 1 {
		t.Errorf("the log is\n%s", log)
	}
	w.must(first.Start(w.ctx))
	w.until("the Envoy to be heard again", func() error {
		st, err := w.api.Service(w.ctx, chat)
		w.must(err)
		for _, i := range st.Instances {
			if i.Reported != nil && (len(i.Reported.Silent) > 0 || time.Since(i.Reported.At) > 5*time.Second) {
				return fmt.Errorf("%s: %+v", i.ID, i.Reported)
			}
		}
		return nil
	})
	w.counted(chat, discovery.Blue, 40)
}

// reportTo has an Envoy send its load reports elsewhere.
func (w *world) reportTo(bootstrap string, other netip.AddrPort) string {
	w.t.Helper()
	var b map[string]any
	w.must(yaml.Unmarshal([]byte(bootstrap), &b))
	static := b["static_resources"].(map[string]any)
	clusters := static["clusters"].([]any)
	text, err := yaml.Marshal(clusters[0])
	w.must(err)
	var more map[string]any
	w.must(yaml.Unmarshal([]byte(strings.ReplaceAll(string(text), "sluice_xds", "other")), &more))
	more["load_assignment"] = map[string]any{"cluster_name": "other", "endpoints": []any{map[string]any{"lb_endpoints": []any{
		map[string]any{"endpoint": map[string]any{"address": map[string]any{"socket_address": map[string]any{
			"address": other.Addr().String(), "port_value": other.Port(),
		}}}},
	}}}}
	static["clusters"] = append(clusters, more)
	b["cluster_manager"].(map[string]any)["load_stats_config"].(map[string]any)["grpc_services"] =
		[]any{map[string]any{"envoy_grpc": map[string]any{"cluster_name": "other"}}}
	text, err = yaml.Marshal(b)
	w.must(err)
	return string(text)
}
