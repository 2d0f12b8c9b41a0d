package reports_test

import (
	"testing"
	"testing/synctest"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/service/metrics/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// anew begins the sink's stream again, on the connection that it has.
func (s *sink) anew(node string) {
	s.t.Helper()
	if err := s.str.RecvMsg(&metricsv3.StreamMetricsResponse{}); status.Code(err) != codes.Unavailable {
		s.t.Errorf("the stream ended with %v", err)
	}
	var err error
	if s.str, err = metricsv3.NewMetricsServiceClient(s.conn).StreamMetrics(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	if err := s.str.Send(&metricsv3.StreamMetricsMessage{Identifier: &metricsv3.StreamMetricsMessage_Identifier{Node: &core.Node{Id: node}}}); err != nil {
		s.t.Fatal(err)
	}
	synctest.Wait()
}

// Two processes with one node id count each for itself.
func TestCountersOfTwoProcessesWithOneID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := published(t)
		one, two := w.sink("edge-1"), w.sink("edge-1")
		defer one.end()
		defer two.end()
		busy, idle := with(map[string]float64{"cluster.blue.upstream_rq_active": 40}), with(map[string]float64{"cluster.blue.upstream_rq_active": 0})
		flush := func() {
			one.flush(busy)
			two.stamp++
			two.send(idle)
		}
		flush()
		w.count("blue", "edge-1 0+0/0 !0 at never silent true")
		flush()
		one.anew("edge-1")
		two.anew("edge-1")
		flush()
		flush()
		w.count("blue", "edge-1 40+0/0 !0 at 1s silent false, edge-1 (2) 0+0/0 !0 at 1s silent false")
	})
}
