package reports_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/xds/reports"
)

// A hot restart: the new process flushes the sum of both, but only of what it used itself,
// and the old one, which has the connections, flushes nothing any more.
func TestCountersAfterAHotRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := published(t)
		parent := w.sink("edge-1")
		defer parent.end()
		values := func(epoch, parents float64, more map[string]float64) map[string]float64 {
			more["server.hot_restart_epoch"], more["server.parent_connections"] = epoch, parents
			more["cluster.sluice_xds.upstream_rq_active"] = 3
			return more
		}
		blue := func(n float64) map[string]float64 {
			return map[string]float64{"cluster.blue.upstream_rq_active": n, "cluster.blue.upstream_cx_active": n}
		}
		parent.flush(values(0, 0, blue(40)))
		parent.flush(values(0, 0, blue(40)))
		w.count("blue", "edge-1 40+0/40 !0 at 1s silent false")

		child := w.sink("edge-1")
		defer child.end()
		for range 9 {
			child.flush(values(1, 40, map[string]float64{}))
		}
		if n := w.Load("blue").Counts; len(n) != 1 || !n[0].Silent {
			t.Errorf("while nobody knows whether there are two: %+v", n)
		}
		time.Sleep(2 * time.Second)
		child.anew("edge-1")
		both := func(what string, want reports.Count) {
			t.Helper()
			all := w.Load("blue").Counts
			if len(all) != 2 || !all[0].Silent {
				t.Fatalf("%s: %+v", what, all)
			}
			got := all[1]
			if got.Node != "edge-1 (2)" || got.Requests != want.Requests || got.Silent != want.Silent || got.At.IsZero() != want.Silent || got.Covers != "edge-1" {
				t.Errorf("%s: %+v, want %+v", what, got, want)
			}
		}
		twice := func(parents float64, more map[string]float64) {
			child.flush(values(1, parents, more))
			child.flush(values(1, parents, more))
		}
		twice(40, map[string]float64{})
		if all := w.Load("blue").Counts; len(all) != 2 || !all[0].Silent || !all[1].At.IsZero() {
			t.Errorf("a gauge that is not there, with a parent: %+v", all)
		}
		twice(40, blue(41))
		both("a gauge that is there is of both", reports.Count{Requests: 41})
		if ended := w.Ended(); len(ended) != 0 {
			t.Errorf("ended with 41 connections: %v", ended)
		}
		twice(0, map[string]float64{})
		both("without a parent what is not there is 0", reports.Count{})
		if ended := w.Ended(); len(ended) != 1 || !ended["edge-1"] {
			t.Errorf("ended: %v, want edge-1", ended)
		}
	})
}

// An Envoy that does not say whether there is a parent proves a 0 only by a gauge.
func TestCountersOfAnEnvoyThatSaysNothingOfAParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := published(t)
		a := w.sink("edge-1")
		defer a.end()
		for range 2 {
			a.flush(map[string]float64{"cluster.blue.upstream_rq_active": 0, "cluster.blue.upstream_cx_active": 0})
		}
		w.count("blue", "edge-1 0+0/0 !0 at 1s silent false")
		w.count("green", "edge-1 0+0/0 !0 at never silent false")
		if r := w.Reporters(); len(r) != 1 || !r[0].Partial {
			t.Errorf("%+v", r)
		}
	})
}

// An Envoy with --disable-hot-restart has no parent, and so no counter of one.
func TestCountersOfAnEnvoyThatIsNeverRestartedHot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := published(t)
		a := w.sink("edge-1")
		defer a.end()
		flush := func(more string) {
			for range 2 {
				a.flush(map[string]float64{"cluster.blue.upstream_rq_active": 0, "cluster.blue.upstream_cx_active": 0, "server.total_connections": 7, more: 0})
			}
		}
		flush("server.live")
		w.count("green", "edge-1 0+0/0 !0 at 1s silent false")
		if r := w.Reporters(); len(r) != 1 || r[0].Partial {
			t.Errorf("%+v", r)
		}
		flush("server.hot_restart_epoch") // its parent's counter was left out
		w.count("green", "edge-1 0+0/0 !0 at never silent false")
	})
}
