package reports_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	loadstats "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

var one, two = netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("10.0.0.2:80")

// said is one endpoint in a report.
type said struct {
	addr                   netip.AddrPort
	held, issued, failures uint64
}

// clusterStats is one cluster as Envoy reports it: without localities when there
// is nothing.
func clusterStats(name string, all ...said) *endpoint.ClusterStats {
	c := &endpoint.ClusterStats{ClusterName: name, LoadReportInterval: durationpb.New(time.Second)}
	if len(all) == 0 {
		return c
	}
	l := &endpoint.UpstreamLocalityStats{}
	for _, s := range all {
		l.TotalRequestsInProgress += s.held
		l.UpstreamEndpointStats = append(l.UpstreamEndpointStats, &endpoint.UpstreamEndpointStats{
			Address: &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
				Address: s.addr.Addr().String(), PortSpecifier: &core.SocketAddress_PortValue{PortValue: uint32(s.addr.Port())},
			}}},
			TotalRequestsInProgress: s.held, TotalIssuedRequests: s.issued, TotalErrorRequests: s.failures,
		})
	}
	c.UpstreamLocalityStats = []*endpoint.UpstreamLocalityStats{l}
	return c
}

// lrs is a client's load report stream.
type lrs struct {
	t    *testing.T
	conn *grpc.ClientConn
	str  loadstats.LoadReportingService_StreamLoadStatsClient
}

func (w *world) reports(node string) lrs {
	w.t.Helper()
	conn := w.dial()
	str, err := loadstats.NewLoadReportingServiceClient(conn).StreamLoadStats(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	l := lrs{w.t, conn, str}
	if err := str.Send(&loadstats.LoadStatsRequest{Node: &core.Node{Id: node}}); err != nil {
		w.t.Fatal(err)
	}
	return l
}

func (l lrs) answer() *loadstats.LoadStatsResponse {
	l.t.Helper()
	r, err := l.str.Recv()
	if err != nil {
		l.t.Fatal(err)
	}
	return r
}

func (l lrs) send(all ...*endpoint.ClusterStats) {
	l.t.Helper()
	if err := l.str.Send(&loadstats.LoadStatsRequest{ClusterStats: all}); err != nil {
		l.t.Fatal(err)
	}
	synctest.Wait()
}

func (l lrs) end() { l.conn.Close(); synctest.Wait() }

func TestLoadReportsOfSeveralProxiesAreSummed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := published(t)
		a, b := w.reports("edge-1"), w.reports("edge-2")
		defer a.end()
		defer b.end()
		if r := a.answer(); !r.SendAllClusters || !r.ReportEndpointGranularity || r.LoadReportingInterval.AsDuration() != time.Second {
			t.Errorf("asked for %v", r)
		}
		a.send(clusterStats("blue", said{one, 3, 4, 1}, said{two, 5, 5, 0}))
		first := time.Now()
		time.Sleep(time.Second)
		b.send(clusterStats("blue", said{one, 2, 6, 0}))
		<-w.Changed()
		if e := w.endpoint(one); e.Held != 5 || e.Issued != 10 || e.Errors != 1 || e.PerSecond != 10 || !e.At.Equal(first) || e.Silent != nil {
			t.Errorf("%+v", e)
		}
		a.send(clusterStats("blue", said{one, 1, 0, 0}, said{two, 7, 2, 0}))
		if e := w.endpoint(one); e.Held != 3 || e.Issued != 10 || e.PerSecond != 6 {
			t.Errorf("%+v", e)
		}
		if e := w.endpoint(two); e.Held != 7 || e.Issued != 7 || e.PerSecond != 2 {
			t.Errorf("%+v", e)
		}
		if n := len(w.Load("green").Endpoints); n != 0 {
			t.Errorf("green has %d endpoints", n)
		}
	})
}

func TestAProxyThatStopsReportingKeepsItsLastCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := published(t)
		a, b := w.reports("edge-1"), w.reports("edge-2")
		defer a.end()
		a.send(clusterStats("blue", said{one, 3, 3, 0}))
		b.send(clusterStats("blue", said{one, 2, 2, 0}))
		b.end()
		if e := w.endpoint(one); e.Held != 5 || !slices.Equal(e.Silent, []string{"edge-2"}) || e.PerSecond != 3 {
			t.Errorf("its stream ended: %+v", e)
		}
		time.Sleep(5 * time.Second)
		if e := w.endpoint(one); !slices.Equal(e.Silent, []string{"edge-2"}) {
			t.Errorf("five intervals are not silence: %+v", e)
		}
		time.Sleep(time.Millisecond)
		if e := w.endpoint(one); e.Held != 5 || !slices.Equal(e.Silent, []string{"edge-1", "edge-2"}) || e.PerSecond != 0 {
			t.Errorf("no report for longer: %+v", e)
		}
		if r := w.Reporters(); len(r) != 2 || !r[0].Silent || !r[1].Silent {
			t.Errorf("%+v", r)
		}
		// Back on another connection, it begins anew; totals go on.
		b = w.reports("edge-2")
		defer b.end()
		b.send(clusterStats("blue", said{one, 1, 1, 0}))
		a.send(clusterStats("blue", said{one, 3, 0, 0}))
		if e := w.endpoint(one); e.Held != 4 || e.Issued != 6 || e.Silent != nil {
			t.Errorf("it came back: %+v", e)
		}
	})
}

func TestTheNewestLoadStreamSpeaksForItsNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := published(t)
		old := w.reports("edge-1")
		defer old.end()
		old.answer()
		old.send(clusterStats("blue", said{one, 3, 3, 0}))
		young := w.reports("edge-1")
		defer young.end()
		young.send(clusterStats("blue", said{one, 4, 1, 0}))
		old.send(clusterStats("blue", said{one, 9, 9, 0}))
		if e := w.endpoint(one); e.Held != 4 || e.Issued != 4 || len(e.Silent) != 1 {
			t.Errorf("while it is not known whether they are two: %+v", e)
		}
		young.end()
		old.send(clusterStats("blue", said{one, 9, 9, 0}))
		if _, err := old.str.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("the older stream ended with %v", err)
		}
	})
}

// Nothing is known of an endpoint that is left out: the last count stays, and the
// proxy is silent about it.
func TestAbsenceIsNoProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := published(t)
		a := w.reports("edge-1")
		defer a.end()
		a.send(clusterStats("blue", said{one, 3, 3, 0}, said{two, 5, 5, 0}))
		for _, report := range []*endpoint.ClusterStats{clusterStats("blue", said{two, 5, 0, 0}), clusterStats("blue")} {
			a.send(report)
			if e := w.endpoint(one); e.Held != 3 || !slices.Equal(e.Silent, []string{"edge-1"}) || !e.At.Equal(time.Now()) {
				t.Errorf("%+v", e)
			}
		}
		a.send(clusterStats("blue", said{one, 0, 0, 2}))
		if e := w.endpoint(one); e.Held != 0 || e.Silent != nil || e.Errors != 2 {
			t.Errorf("it said 0: %+v", e)
		}
		a.send(clusterStats("blue"))
		if e := w.endpoint(one); e.Held != 0 || e.Silent != nil {
			t.Errorf("what held nothing and is left out: %+v", e)
		}
	})
}

func TestHostileLoadReports(t *testing.T) {
	minusOne := uint64(1<<64 - 1)
	synctest.Test(t, func(t *testing.T) {
		w := published(t)
		a := w.reports("liar")
		defer a.end()
		a.send(clusterStats("blue", said{one, 3, 3, 0}))
		many := make([]said, 10_001)
		for i := range many {
			many[i] = said{netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 80), 1, 1, 0}
		}
		nowhere := clusterStats("blue", said{one, 1, 1, 0})
		nowhere.UpstreamLocalityStats[0].UpstreamEndpointStats[0].Address = &core.Address{}
		vague := clusterStats("blue", said{one, 1, 1, 0})
		vague.UpstreamLocalityStats[0].UpstreamEndpointStats = nil
		for want, c := range map[string]*endpoint.ClusterStats{
			"signed number -1":              clusterStats("blue", said{one, 0, minusOne, 0}, said{two, 1, 1, 0}),
			"count of 9223372036854775808":  clusterStats("blue", said{two, 1, 1, 0}, said{one, 1 << 63, 0, 0}),
			"count of 2147483649":           clusterStats("blue", said{one, 1, 1, 1<<31 + 1}),
			"signed number 16777217":        clusterStats("blue", said{one, 1<<24 + 1, 0, 0}),
			"count of 16777217":             clusterStats("blue", said{one, 1 << 24, 0, 0}, said{one, 1, 0, 0}), // each can be
			"no address":                    nowhere,
			"names no endpoints":            vague,
			"more than 10000 endpoints":     clusterStats("blue", many...),
			"names no cluster, or one of m": clusterStats(strings.Repeat("x", 1000)),
		} {
			before := w.Reporters()[0].Refused
			a.send(c)
			if r := w.Reporters()[0]; r.Refused != before+1 || !strings.Contains(r.Trouble, want) {
				t.Errorf("%q: refused %d: %s", want, r.Refused-before, r.Trouble)
			}
			if e := w.endpoint(one); e.Held != 3 || e.Issued != 3 || e.Errors != 0 || len(w.Load("blue").Endpoints) != 1 {
				t.Errorf("%q: a part of it was believed: %+v", want, e)
			}
		}
		for i := range 100 {
			a.send(clusterStats(fmt.Sprint("mine-", i), said{one, 1, 1, 1}))
		}
		if r := w.Reporters()[0]; len(r.Ignored) != 8 || r.Ignored[0] != "mine-0" || len(w.Load("mine-0").Endpoints) != 0 {
			t.Errorf("%+v", r)
		}
		if n := strings.Count(w.logs.String(), "never published"); n != 8 {
			t.Errorf("unknown clusters are logged %d times", n)
		}
		if n := strings.Count(w.logs.String(), "was refused"); n < 1 || n > 2 {
			t.Errorf("refusals are logged %d times", n)
		}
		// The others' word counts as ever.
		b := w.reports("edge-1")
		defer b.end()
		b.send(clusterStats("blue", said{one, 2, 2, 0}))
		if e := w.endpoint(one); e.Held != 5 {
			t.Errorf("%+v", e)
		}
		nobody := w.reports("")
		defer nobody.end()
		if _, err := nobody.str.Recv(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("a node without id got %v", err)
		}
	})
}

func TestReportsAreForgottenAfterADay(t *testing.T) {
	again := func(w *world, node string) {
		l := w.reports(node)
		l.answer()
		l.end()
	}
	synctest.Test(t, func(t *testing.T) {
		w := published(t)
		a := w.reports("edge-1")
		a.send(clusterStats("blue", said{one, 3, 3, 0}))
		a.end()
		time.Sleep(23 * time.Hour)
		again(w, "edge-2")
		if e := w.endpoint(one); e.Held != 3 {
			t.Errorf("after 23 h: %+v", e)
		}
		time.Sleep(2 * time.Hour)
		again(w, "edge-3")
		if n := len(w.Load("blue").Endpoints); n != 0 {
			t.Errorf("after 25 h there are %d endpoints", n)
		}
	})
}
