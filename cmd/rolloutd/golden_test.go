package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-proxy/sluice/cmd/internal/config"
	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/xds/reports/exchange"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s (%v)", path, got, want, err)
	}
}

// TestMetricFamilies holds what dashboards and alerts are built on: the name, type,
// labels and help of every family.
func TestMetricFamilies(t *testing.T) {
	carries := newLoads(newPublisher(&config.Config{}, slog.New(slog.DiscardHandler)))
	carries.traffic = map[discovery.Service]traffic{"chat": {
		overflow: map[discovery.Colour]uint64{discovery.Blue: 1}, witnesses: map[discovery.Colour]observed.Witness{discovery.Blue: {}},
	}}
	carries.pub.hub.Import("http://10.0.0.9:18001", exchanged())
	described := regexp.MustCompile(`^Desc\{fqName: "(.*?)", help: "(.*?)", .*variableLabels: \{(.*)\}\}$`)
	var lines []string
	for _, c := range []prometheus.Collector{newMetrics(draining, proxies), newLoadMetrics(carries)} {
		types := map[string]string{}
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(c)
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			types[f.GetName()] = f.GetType().String()
		}
		descs := make(chan *prometheus.Desc, 100)
		c.Describe(descs)
		close(descs)
		for d := range descs {
			said := described.FindStringSubmatch(d.String())
			if said == nil || types[said[1]] == "" {
				t.Fatalf("%s is not understood, or has no sample", d)
			}
			lines = append(lines, fmt.Sprintf("%s{%s} %s\n\t%s\n", said[1], said[3], types[said[1]], said[2]))
		}
	}
	slices.Sort(lines)
	golden(t, "metrics.txt", []byte(strings.Join(lines, "")))
}

// TestReportsWords holds what GET /v1/reports tells the other replicas.
func TestReportsWords(t *testing.T) {
	text, err := json.Marshal(exchanged())
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "reports.json", append(text, '\n'))
}

func exchanged() exchange.Reports {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return exchange.Reports{Now: at, Nodes: []exchange.Node{
		{Node: "edge-1", Loads: at, Counters: at, Clusters: map[string]exchange.Cluster{"chat-blue": {
			Endpoints: map[netip.AddrPort]exchange.Endpoint{netip.MustParseAddrPort("10.0.0.1:80"): {Held: 1, Issued: 2, Errors: 3, PerSecond: 4.5}},
			Requests:  6, Pending: 7, Connections: 8, Overflow: 9, Connects: 10, Connect: 11 * time.Millisecond,
		}}},
		{Node: "edge-2", Clusters: map[string]exchange.Cluster{"chat-green": {}}},
	}}
}
