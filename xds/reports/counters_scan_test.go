package reports

import (
	"fmt"
	"testing"

	metrics "github.com/envoyproxy/go-control-plane/envoy/service/metrics/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// FuzzScan: whatever is sent, it is read as the generated code reads it, or
// refused.
func FuzzScan(f *testing.F) {
	f.Add(flushOf(f, 3))
	f.Add([]byte("\x12\x02\x0a\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := scan(b)
		if err != nil {
			return
		}
		var whole metrics.StreamMetricsMessage
		if proto.Unmarshal(b, &whole) != nil {
			return // such as a name that is no UTF-8
		}
		if len(m.clusters) > len(whole.EnvoyMetrics) {
			t.Errorf("%d clusters in %d metrics", len(m.clusters), len(whole.EnvoyMetrics))
		}
		for name, c := range m.clusters {
			if c.requests < 0 || c.pending < 0 || c.connections < 0 || c.connect < 0 {
				t.Errorf("%s: %+v", name, c)
			}
		}
	})
}

// flushOf is what an Envoy with n clusters sends each second.
func flushOf(t testing.TB, n int) []byte {
	t.Helper()
	var m metrics.StreamMetricsMessage
	add := func(format string, args ...any) {
		var one metrics.StreamMetricsMessage
		if err := protojson.Unmarshal(fmt.Appendf(nil, `{"envoy_metrics":[`+format+`]}`, args...), &one); err != nil {
			t.Fatal(err)
		}
		m.EnvoyMetrics = append(m.EnvoyMetrics, one.EnvoyMetrics...)
	}
	for i := range n {
		for j := range 40 {
			add(`{"name":"cluster.service-%d-blue.upstream_some_counter_%d","metric":[{"counter":{"value":%d},"timestamp_ms":1795378647120}]}`, i, j, j)
		}
		for _, what := range []string{requestsActive, requestsPending, connectionsOpen} {
			add(`{"name":"cluster.service-%d-blue.%s","metric":[{"gauge":{"value":7},"timestamp_ms":1795378647120}]}`, i, what)
		}
		add(`{"name":"cluster.service-%d-blue.upstream_cx_connect_ms","metric":[{"summary":{"sample_count":3,"quantile":[{"quantile":0.99,"value":2}]},"timestamp_ms":1795378647120}]}`, i)
	}
	b, err := proto.Marshal(&m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestScan(t *testing.T) {
	m, err := scan(flushOf(t, 2))
	want := counters{requests: 7, pending: 7, connections: 7, connects: 3, connect: 2e6, gauge: true, open: true}
	if err != nil || m.stamp != 1795378647120 || len(m.clusters) != 2 || m.clusters["service-1-blue"] != want || m.fault != "" {
		t.Errorf("%+v %v", m, err)
	}
	if _, err := scan([]byte{0x12, 0xff}); err == nil {
		t.Error("half a message was read")
	}
}

// BenchmarkScan: the counters of one Envoy with 200 clusters, against the generated code.
func BenchmarkScan(b *testing.B) {
	flush := flushOf(b, 200)
	b.Run("scan", func(b *testing.B) {
		b.SetBytes(int64(len(flush)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := scan(flush); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("generated", func(b *testing.B) {
		b.SetBytes(int64(len(flush)))
		b.ReportAllocs()
		for b.Loop() {
			if err := proto.Unmarshal(flush, new(metrics.StreamMetricsMessage)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
