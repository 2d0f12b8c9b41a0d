package reports_test

import (
	"fmt"
	"maps"
	"math"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/service/metrics/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
)

// sink is an Envoy's stats sink.
type sink struct {
	t     *testing.T
	conn  *grpc.ClientConn
	str   metricsv3.MetricsService_StreamMetricsClient
	stamp int64
}

func (w *world) sink(node string) *sink {
	w.t.Helper()
	conn := w.dial()
	str, err := metricsv3.NewMetricsServiceClient(conn).StreamMetrics(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	s := &sink{t: w.t, conn: conn, str: str}
	if err := str.Send(&metricsv3.StreamMetricsMessage{Identifier: &metricsv3.StreamMetricsMessage_Identifier{Node: &core.Node{Id: node}}}); err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
	return s
}

func (s *sink) end() { s.conn.Close(); synctest.Wait() }

// flush sends gauges of one moment, split over as many messages as there are.
func (s *sink) flush(messages ...map[string]float64) {
	s.t.Helper()
	time.Sleep(time.Second)
	s.stamp++
	for _, values := range messages {
		s.send(values)
	}
}

// send sends one message; more is further metric families, in JSON.
func (s *sink) send(values map[string]float64, more ...string) {
	s.t.Helper()
	for name, v := range values {
		kind := "gauge"
		if strings.HasSuffix(name, "overflow") || strings.HasSuffix(name, "fail") || strings.Contains(name, "upstream_rq_50") {
			kind = "counter"
		}
		more = append(more, fmt.Sprintf(`{"name":%q,"metric":[{%q:{"value":%s},"timestamp_ms":%d}]}`, name, kind, number(v), s.stamp))
	}
	m := &metricsv3.StreamMetricsMessage{}
	if err := protojson.Unmarshal([]byte(`{"envoy_metrics":[`+strings.Join(more, ",")+`]}`), m); err != nil {
		s.t.Fatal(err)
	}
	if err := s.str.Send(m); err != nil {
		s.t.Fatal(err)
	}
	synctest.Wait()
}

// number is a value in protobuf's JSON.
func number(v float64) string {
	switch {
	case math.IsNaN(v):
		return `"NaN"`
	case math.IsInf(v, 1):
		return `"Infinity"`
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// own is what every Envoy has, whatever it serves.
func own() map[string]float64 {
	return map[string]float64{"cluster.sluice_xds.upstream_rq_active": 3, "cluster.sluice_xds.upstream_cx_active": 1, "server.live": 1, "server.parent_connections": 0}
}

func with(more map[string]float64) map[string]float64 {
	maps.Copy(more, own())
	return more
}

func (w *world) counts(cluster string) string {
	var all []string
	for _, c := range w.Load(cluster).Counts {
		at := "never"
		if !c.At.IsZero() {
			at = fmt.Sprint(time.Since(c.At).Round(time.Second))
		}
		all = append(all, fmt.Sprintf("%s %d+%d/%d !%d at %s silent %v", c.Node, c.Requests, c.Pending, c.Connections, c.Overflow, at, c.Silent))
	}
	return strings.Join(all, ", ")
}

func (w *world) count(cluster, want string) {
	w.t.Helper()
	if got := w.counts(cluster); got != want {
		w.t.Errorf("%s: %s, want %s", cluster, got, want)
	}
}

// Connects that fail and 503 are refusals; another answer is none, whatever its code.
func TestRefusalsOfACluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := published(t)
		a := w.sink("edge-1")
		defer a.end()
		for _, n := range []float64{5, 8} {
			a.flush(with(map[string]float64{"cluster.blue.upstream_rq_active": 1, "cluster.blue.upstream_rq_503": n, "cluster.blue.upstream_cx_connect_fail": 2 * n, "cluster.blue.upstream_rq_500": 100 * n}))
		}
		a.flush(own())
		if got := w.Load("blue").Counts[0].Refused; got != 9 {
			t.Errorf("%d refusals, want 9", got)
		}
	})
}

func TestCountersOfACluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := published(t)
		a := w.sink("edge-1")
		w.count("blue", "edge-1 0+0/0 !0 at never silent true")
		a.flush(with(map[string]float64{"cluster.blue.upstream_rq_active": 7, "cluster.blue.upstream_cx_active": 9, "cluster.blue.upstream_rq_pending_active": 2, "cluster.blue.upstream_rq_pending_overflow": 5}))
		w.count("blue", "edge-1 0+0/0 !0 at never silent true") // more of it may come
		a.flush(with(map[string]float64{"cluster.blue.upstream_rq_active": 6, "cluster.blue.upstream_cx_active": 9, "cluster.blue.upstream_rq_pending_active": 0, "cluster.blue.upstream_rq_pending_overflow": 6, "cluster.blue.upstream_rq_active_overflow": 2, "cluster.blue.upstream_cx_overflow": 1}))
		w.count("blue", "edge-1 7+2/9 !0 at 1s silent false")
		w.count("green", "edge-1 0+0/0 !0 at 1s silent false") // never used there
		a.flush(with(map[string]float64{"cluster.green.upstream_rq_active": 1}))
		w.count("blue", "edge-1 6+0/9 !4 at 1s silent false")
		a.flush(own())
		w.count("blue", "edge-1 0+0/0 !4 at 1s silent false") // the cluster is gone
		w.count("green", "edge-1 1+0/0 !0 at 1s silent false")
		a.end()
		w.count("green", "edge-1 1+0/0 !0 at 1s silent true")

		// A new process begins anew.
		b := w.sink("edge-1")
		defer b.end()
		b.flush(with(map[string]float64{"cluster.blue.upstream_rq_pending_overflow": 2, "cluster.blue.upstream_rq_active": 1}))
		b.flush(own())
		w.count("green", "edge-1 0+0/0 !0 at 1s silent false")
		w.count("blue", "edge-1 1+0/0 !6 at 1s silent false")
		time.Sleep(6 * time.Second)
		w.count("blue", "edge-1 1+0/0 !6 at 7s silent true")
	})
}

// What stands in another message of the same flush is not absent.
func TestCountersInSeveralMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := published(t)
		a := w.sink("edge-1")
		defer a.end()
		for range 3 {
			a.flush(own(), map[string]float64{"cluster.blue.upstream_cx_active": 4}, map[string]float64{"cluster.blue.upstream_rq_active": 4}, map[string]float64{"server.live": 1, "server.parent_connections": 0})
			if got := w.counts("blue"); strings.Contains(got, " 0+0/") && !strings.Contains(got, "never") {
				t.Errorf("counted as empty: %s", got)
			}
		}
		w.count("blue", "edge-1 4+0/4 !0 at 1s silent false")
	})
}

// A proxy that is told to send no gauges proves nothing.
func TestCountersThatSayNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := published(t)
		a := w.sink("edge-1")
		defer a.end()
		for range 3 {
			a.flush(map[string]float64{"server.live": 1, "cluster.blue.upstream_cx_active": 0, "cluster.blue.membership_total": 2})
		}
		w.count("blue", "edge-1 0+0/0 !0 at never silent true")
	})
}

func TestTheTimeToConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := published(t)
		a := w.sink("edge-1")
		defer a.end()
		took := func(samples uint64, p99 float64) {
			a.stamp++
			a.send(with(map[string]float64{"cluster.blue.upstream_rq_active": 1}), fmt.Sprintf(`{"name":"cluster.blue.upstream_cx_connect_ms","metric":[{
				"timestamp_ms":%d,"summary":{"sample_count":%d,"sample_sum":1,"quantile":[
				{"quantile":0.5,"value":1},{"quantile":0.99,"value":%s},{"quantile":1,"value":900}]}}]}`, a.stamp, samples, number(p99)))
			time.Sleep(time.Second)
		}
		p99 := func() time.Duration { return w.Load("blue").Counts[0].ConnectP99 }
		took(10, 12.5)
		took(0, math.NaN())
		if got := p99(); got != 12500*time.Microsecond {
			t.Errorf("%v", got)
		}
		took(0, math.NaN())
		if got := p99(); got != 12500*time.Microsecond {
			t.Errorf("after a second without connections: %v", got)
		}
		for range 10 {
			took(0, math.NaN())
		}
		if got := p99(); got != 0 {
			t.Errorf("after ten seconds without connections: %v", got)
		}
	})
}

// The counters tell an endpoint that was emptied from one that was removed.
func TestCountersSettleWhatIsAbsent(t *testing.T) {
	for name, c := range map[string]struct {
		active float64
		held   int
	}{"emptied": {5, 0}, "removed": {8, 3}, "removed, and one has ended": {7, 2}, "new ones elsewhere": {60, 3}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := published(t)
				a, s := w.reports("edge-1"), w.sink("edge-1")
				defer a.end()
				defer s.end()
				a.send(clusterStats("blue", said{one, 3, 3, 0}, said{two, 5, 5, 0}))
				s.flush(with(map[string]float64{"cluster.blue.upstream_rq_active": 8}))
				a.send(clusterStats("blue", said{two, 5, 0, 0}))
				for range 4 {
					s.flush(with(map[string]float64{"cluster.blue.upstream_rq_active": c.active}))
					a.send(clusterStats("blue", said{two, 5, 0, 0}))
				}
				e := w.endpoint(one)
				if e.Held != c.held || (len(e.Silent) > 0) != (c.held > 0) {
					t.Errorf("%+v", e)
				}
				if e := w.endpoint(two); e.Held != 5 || e.Silent != nil {
					t.Errorf("the other: %+v", e)
				}
			})
		})
	}
}

func TestHostileCounters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := published(t)
		a := w.sink("liar")
		defer a.end()
		for _, v := range []float64{-1, math.NaN(), math.Inf(1), 1e300} {
			a.flush(with(map[string]float64{"cluster.blue.upstream_rq_active": v, "cluster.green.upstream_rq_active": 2}))
		}
		half := map[string]float64{"cluster.blue.upstream_rq_active": 1 << 23}
		a.flush(half, half, half, own()) // each can be, the sum cannot
		if r := w.Reporters()[0]; r.Refused != 5 || !strings.Contains(r.Trouble, "25165824 requests") {
			t.Errorf("%+v", r)
		}
		a.flush(with(map[string]float64{"cluster.blue.upstream_rq_active": 1e300}))
		if r := w.Reporters()[0]; r.Refused != 6 || !strings.Contains(r.Trouble, "cluster.blue.upstream_rq_active is 1e+300") {
			t.Errorf("%+v", r)
		}
		w.count("green", "liar 0+0/0 !0 at never silent true") // believed whole or not at all
		many := own()
		for i := range 5000 {
			many[fmt.Sprintf("cluster.mine-%d.upstream_rq_active", i)] = 1
		}
		a.flush(many)
		if r := w.Reporters()[0]; len(r.Ignored) > 8 {
			t.Errorf("%d names", len(r.Ignored))
		}
		nobody := w.sink("")
		defer nobody.end()
		if err := nobody.str.RecvMsg(&metricsv3.StreamMetricsResponse{}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("a node without id got %v", err)
		}
	})
}
