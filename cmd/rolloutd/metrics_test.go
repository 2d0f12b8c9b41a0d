package main

import (
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

func draining() map[discovery.Service]rollout.View {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	addr := netip.MustParseAddrPort("10.0.0.1:80")
	blue := discovery.Instance{ID: "b1", Colour: discovery.Blue, Addr: addr, Health: discovery.Passing, Drain: "http://10.0.0.1:81"}
	green := discovery.Instance{ID: "g1", Colour: discovery.Green, Addr: netip.MustParseAddrPort("10.0.0.2:80"), Health: discovery.Warning, Drain: "http://10.0.0.2:81", Capacity: 300}
	stored := state.New("chat", discovery.Blue)
	stored.Epoch = 1
	stored.Members = map[discovery.InstanceID]state.Member{
		"b1":                  {Identity: state.Identity{ID: "b1", Colour: discovery.Blue, Addr: addr, Drain: blue.Drain}, Quota: state.Quota{Ceiling: new(40)}, Counts: state.Counts{Counted: true, Totals: observed.Totals{Evicted: 5}}},
		"b1@10.0.0.9:80/blue": {Identity: state.Identity{ID: "b1", Colour: discovery.Blue, Addr: netip.MustParseAddrPort("10.0.0.9:80"), Drain: "http://10.0.0.9:81"}, Departed: at},
		"g1":                  {Identity: state.Identity{ID: "g1", Colour: discovery.Green, Addr: green.Addr, Drain: green.Drain}, Counts: state.Counts{Counted: true}},
	}
	stored.Rollout = &state.Rollout{ID: "chat-1", From: discovery.Blue, To: discovery.Green, Phase: state.Draining,
		Paused: true, Policy: policy.Default(), Started: at, Since: at,
		Steps: state.Steps{Step: 3, Pace: state.Pace{Limit: 50, Why: "2 of 30 new connections were refused"}},
		Toll:  state.Toll{Total: 100, NeverBack: 1}, Batches: state.Batches{Batch: 2}}
	stored.Rollout.Policy.Deadline = units.Duration(time.Minute)
	stored.Rollout.Policy.Gates = []policy.Gate{{Name: "errors"}, {Name: "load"}, {Name: "new"}}
	return map[discovery.Service]rollout.View{"chat": {
		State: stored,
		Seen: observed.Seen{
			Fleet: discovery.Fleet{Instances: []discovery.Instance{blue, green}, LeftOut: []discovery.LeftOut{{ID: "x", Reason: "no colour"}}, Err: "no answer"},
			Instances: map[discovery.InstanceID]observed.Sighting{
				"b1": {At: at, Status: contract.Status{State: contract.Draining, Active: 42, Evicted: 25, Accepted: 70, Returned: new(uint64(0))}},
				"g1": {At: at, Status: contract.Status{State: contract.Serving, Active: 18, Accepted: 18, Returned: new(uint64(17)), Ticketed: new(uint64(17))}},
			},
			Gates:   map[string]observed.Reading{"errors": {Open: true, At: at}, "load": {At: at}},
			Proxies: []observed.Proxy{{Node: "edge-1", Routes: true, Connected: true, Confirmed: true}, {Node: "edge-2", Routes: true, Connected: true}},
			Loads:   map[observed.Place]observed.Load{{Colour: discovery.Blue, Addr: addr}: {Held: 30, At: at}},
			Witnesses: map[discovery.Colour]observed.Witness{
				discovery.Blue: {Active: 31, At: at, ConnectP99: 1500 * time.Microsecond}, discovery.Green: {Missing: []string{"edge-2"}},
			},
		},
		Differences: map[discovery.InstanceID]rollout.Difference{"b1": {Said: 42, Reported: 30, Since: at}},
		Wish:        desired.Wish{Weights: map[discovery.Colour]units.Share{discovery.Green: units.Whole}},
		Reason:      rollout.Reason{Code: rollout.Paused, Text: "paused"},
	}}
}

func proxies() []api.Proxy {
	return []api.Proxy{{Node: "edge-1", Connected: true, NackCount: 2}, {Node: "edge-2", Connected: true}}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(newMetrics(draining, proxies))
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Fatalf("lint: %v, %v", problems, err)
	}
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	if rec.Code != 200 {
		t.Fatalf("scrape: %d %s", rec.Code, rec.Body)
	}
	for _, want := range []string{
		`sluice_connections{colour="blue",instance="b1",node="",service="chat"} 42`,
		`sluice_connections{colour="green",instance="g1",node="",service="chat"} 18`,
		`sluice_ceiling{colour="blue",instance="b1",node="",service="chat"} 40`,
		`sluice_evicted_total{colour="blue",instance="b1",node="",service="chat"} 25`,
		`sluice_returned_total{colour="green",instance="g1",node="",service="chat"} 17`,
		`sluice_drain_error{colour="blue",instance="b1@10.0.0.9:80",node="",service="chat"} 0`,
		`sluice_rollout_evicted{service="chat"} 20`,
		`sluice_rollout_lost{service="chat"} 0`,
		`sluice_outstanding{service="chat"} 2`,
		`sluice_outstanding_at_least{service="chat"} 2`,
		`sluice_never_back{service="chat"} 1`,
		`sluice_pace{service="chat"} 50`,
		`sluice_alarm{service="chat"} 1`,
		`sluice_batch{service="chat"} 2`,
		`sluice_gate_open{gate="errors",service="chat"} 1`,
		`sluice_gate_open{gate="load",service="chat"} 0`,
		`sluice_capacity{colour="green",service="chat"} 300`,
		`sluice_phase{phase="draining",service="chat"} 1`,
		`sluice_phase{phase="steady",service="chat"} 0`,
		`sluice_paused{service="chat"} 1`,
		`sluice_waiting{reason="paused",service="chat"} 1`,
		`sluice_weight{colour="green",service="chat"} 1`,
		`sluice_weight{colour="blue",service="chat"} 0`,
		`sluice_instances{colour="green",health="warning",service="chat"} 1`,
		`sluice_instances{colour="green",health="passing",service="chat"} 0`,
		`sluice_departed{colour="blue",service="chat"} 1`,
		`sluice_left_out{service="chat"} 1`,
		`sluice_discovery_error{service="chat"} 1`,
		`sluice_discovery_suspect{service="chat"} 0`,
		`sluice_proxies{service="chat",state="connected"} 2`,
		`sluice_proxies{service="chat",state="confirmed"} 1`,
		`sluice_nacks_total{node="edge-1"} 2`,
		`sluice_withheld{node="edge-2"} 0`,
		`sluice_reported_connections{colour="blue",instance="b1",node="",service="chat"} 30`,
		`sluice_connections_difference{colour="blue",instance="b1",node="",service="chat"} 12`,
		`sluice_colour_connections{colour="blue",service="chat"} 31`,
		`sluice_connect_p99_seconds{colour="blue",service="chat"} 0.0015`,
	} {
		if !strings.Contains(rec.Body.String(), want+"\n") {
			t.Errorf("missing %s", want)
		}
	}
	// What is not known has no sample.
	if strings.Contains(rec.Body.String(), `sluice_connections{colour="blue",instance="b1@10.0.0.9:80"`) {
		t.Error("an instance that never answered has a count")
	}
	if strings.Contains(rec.Body.String(), `sluice_gate_open{gate="new"`) || strings.Contains(rec.Body.String(), `sluice_capacity{colour="blue"`) {
		t.Error("a gate that was not asked has a sample, or a colour that takes no new connections a capacity")
	}
	if strings.Contains(rec.Body.String(), `sluice_colour_connections{colour="green"`) {
		t.Error("a colour of which no proxy speaks has a count")
	}
}

// A label that is no UTF-8 must not end the process.
func TestMetricsSurviveBadNames(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(newMetrics(draining, func() []api.Proxy { return []api.Proxy{{Node: "\xff"}} }))
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}).ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	if rec.Code != 200 || !strings.Contains(rec.Body.String(), "sluice_paused") {
		t.Errorf("scrape: %d %s", rec.Code, rec.Body)
	}
}
