package reports_test

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/xds/reports/exchange"
)

// pass hands what is reported to one replica to another, the way rolloutd does.
func pass(t *testing.T, from, to *world) {
	t.Helper()
	b, err := json.Marshal(from.Export())
	if err != nil {
		t.Fatal(err)
	}
	var r exchange.Reports
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	to.Import("replica", r)
}

// A proxy's streams may end at two replicas: both know what it carries, and what
// was passed on is not passed back.
func TestReportsOfReplicasAreMergedByNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := published(t), published(t)
		loads, counts := a.reports("edge-1"), b.sink("edge-1")
		defer loads.end()
		defer counts.end()
		for range 3 {
			loads.send(clusterStats("blue", said{one, 4, 2, 1}))
			counts.flush(with(map[string]float64{"cluster.blue.upstream_rq_active": 4}))
			pass(t, a, b)
			pass(t, b, a)
		}
		for name, w := range map[string]*world{"the one with the load reports": a, "the one with the counters": b} {
			l := w.Load("blue")
			if e := l.Endpoints[one]; e.Held != 4 || e.PerSecond != 2 || len(e.Silent) > 0 {
				t.Errorf("%s: %+v", name, e)
			}
			if len(l.Counts) != 1 || l.Counts[0].Silent || l.Counts[0].Requests != 4 {
				t.Errorf("%s: %+v", name, l.Counts)
			}
		}
		// The first report was no news by itself: where totals stood is not known.
		if here, there := a.endpoint(one), b.endpoint(one); here.Issued != 6 || here.Errors != 3 || there.Issued != 4 || there.Errors != 2 {
			t.Errorf("here %+v, there %+v", here, there)
		}
		if nodes := a.Export().Nodes; len(nodes) != 1 || nodes[0].Loads.IsZero() || !nodes[0].Counters.IsZero() {
			t.Errorf("passed on is %+v", nodes)
		}
	})
}

// The load reports move from one replica to the other and back: totals never fall
// and count nothing twice, and the newest report speaks.
func TestReportsMoveBetweenReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := published(t), published(t)
		turn := func(l lrs, held uint64) {
			l.send(clusterStats("blue", said{one, held, 1, 0}))
			pass(t, a, b)
			pass(t, b, a)
			time.Sleep(time.Second)
		}
		first := a.reports("edge-1")
		turn(first, 1)
		turn(first, 2)
		first.end()
		second := b.reports("edge-1")
		turn(second, 3)
		turn(second, 4)
		second.end()
		third := a.reports("edge-1")
		defer third.end()
		turn(third, 5)
		turn(third, 6)
		for name, w := range map[string]*world{"a": a, "b": b} {
			if e := w.endpoint(one); e.Held != 6 || len(e.Silent) > 0 || e.Issued < 4 || e.Issued > 6 {
				t.Errorf("%s: %+v; want 6 held, and 4 to 6 of the 6 that were issued", name, e)
			}
		}
	})
}

// A stream that ends there, and a replica that is not heard of any more, make the
// proxy silent; its last count stays.
func TestReportsOfALostReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := published(t), published(t)
		loads := a.reports("edge-1")
		loads.send(clusterStats("blue", said{one, 4, 2, 0}))
		pass(t, a, b)
		silent := func(want bool) {
			t.Helper()
			if e := b.endpoint(one); e.Held != 4 || slices.Contains(e.Silent, "edge-1") != want {
				t.Errorf("%+v, want silent %v", e, want)
			}
		}
		silent(false)
		time.Sleep(6 * time.Second)
		silent(true)
		loads.send(clusterStats("blue", said{one, 4, 0, 0}))
		pass(t, a, b)
		silent(false)
		loads.end()
		pass(t, a, b)
		silent(true)
	})
}

// An endpoint that is absent from the reports at one replica is known to be empty by
// the counters at the other.
func TestReportsShowEmptyAcrossReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := published(t), published(t)
		loads, counts := a.reports("edge-1"), b.sink("edge-1")
		defer loads.end()
		defer counts.end()
		round := func(active float64, all ...said) {
			loads.send(clusterStats("blue", all...))
			counts.flush(with(map[string]float64{"cluster.blue.upstream_rq_active": active}))
			pass(t, a, b)
			pass(t, b, a)
		}
		round(3, said{one, 3, 3, 0})
		for range 4 {
			round(0)
		}
		for name, w := range map[string]*world{"a": a, "b": b} {
			if e := w.endpoint(one); e.Held != 0 || len(e.Silent) > 0 {
				t.Errorf("%s: %+v", name, e)
			}
		}
	})
}

// What another replica says is bounded as what proxies say.
func TestHostileReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := published(t)
		most := exchange.Cluster{
			Endpoints: map[netip.AddrPort]exchange.Endpoint{one: {Held: math.MaxInt, PerSecond: math.MaxFloat64}},
			Requests:  math.MaxInt, Pending: math.MinInt, Connections: math.MaxInt, Connect: math.MaxInt64,
		}
		for i := range 3 {
			for n := range 100 {
				most.Endpoints[one] = exchange.Endpoint{Held: math.MaxInt, PerSecond: math.MaxFloat64, Issued: uint64(i) * (math.MaxUint64 / 2), Errors: uint64(i)}
				most.Overflow = uint64(i) * (math.MaxUint64 / 2)
				at := time.Now()
				w.Import("other", exchange.Reports{Now: at, Nodes: []exchange.Node{{
					Node: fmt.Sprint("edge-", n), Loads: at, Counters: at, Clusters: map[string]exchange.Cluster{"blue": most},
				}}})
				time.Sleep(time.Millisecond)
			}
		}
		e := w.endpoint(one)
		if e.Held != 100<<24 || e.PerSecond > 100*1e9 || e.Issued > 200<<31 {
			t.Errorf("%+v", e)
		}
		for _, c := range w.Load("blue").Counts {
			if c.Requests != 1<<24 || c.Pending != 0 || c.Overflow > 2<<31 || c.ConnectP99 > time.Hour {
				t.Errorf("%+v", c)
			}
		}
	})
}

// Two processes with one id that report to two replicas are two here, too, until one of them
// turns out to have moved.
func TestTwinsAtTwoReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := published(t), published(t)
		busy, idle := a.sink("edge-1"), b.sink("edge-1")
		defer idle.end()
		for range 3 {
			busy.flush(with(map[string]float64{"cluster.blue.upstream_rq_active": 40}))
			idle.flush(with(map[string]float64{"cluster.blue.upstream_rq_active": 0}))
			pass(t, b, a)
		}
		a.count("blue", "edge-1 40+0/0 !0 at 3s silent false, edge-1 (at replica) 0+0/0 !0 at 2s silent false")
		busy.end()
		for range 2 {
			idle.flush(with(map[string]float64{"cluster.blue.upstream_rq_active": 0}))
			pass(t, b, a)
		}
		a.count("blue", "edge-1 0+0/0 !0 at 1s silent false")
	})
}
