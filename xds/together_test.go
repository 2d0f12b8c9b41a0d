package xds_test

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// Bytes that some proxy has acknowledged, or says that it holds, go together; new ones alone.
func TestWhatSomeProxyHasGoesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := []resource.Resource{res(t, rds, "a", 1), res(t, rds, "b", 1), res(t, rds, "c", 1)}
		w := start(t, set...)
		first, second := w.client("edge-1"), w.client("edge-2")
		defer second.close()
		first.ask(rds, "a", "b", "c")
		first.hears("RDS +a:1", "RDS +b:1", "RDS +c:1")
		second.ask(rds, "a", "b", "c")
		second.hears("RDS +a:1 +b:1 +c:1")
		first.hold[rds], second.hold[rds] = true, true
		w.Publish([]resource.Resource{res(t, rds, "a", 2), res(t, rds, "b", 2)}) // c goes, too
		second.hears("RDS +a:2", "RDS +b:2", "RDS -c")
		first.release(rds)
		second.release(rds)

		first.close() // it says to a new process of the server what it holds
		anew := start(t, res(t, rds, "a", 2), res(t, rds, "b", 2), res(t, rds, "d", 1))
		first.connect(anew)
		first.ask(rds, "a", "b")
		first.hears("RDS +a:2", "RDS +b:2", "RDS -c") // from before
		third := anew.client("edge-3")
		defer third.close()
		third.ask(rds, "a", "d", "b")
		third.hears("RDS +a:2", "RDS +d:1", "RDS +b:2")
		first.close()
	})
}

// What others have acknowledged may still be bad for one: then it is found alone, as new bytes are.
func TestWhatOneRefusesTogetherComesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, res(t, eds, "a", 1), res(t, eds, "b", 1), res(t, eds, "c", 1))
		first, second := w.client("edge-1"), w.client("edge-2")
		defer first.close()
		defer second.close()
		first.ask(eds, "a", "b", "c")
		first.hears("EDS +a:1", "EDS +b:1", "EDS +c:1")
		second.refuse = func(_, name string, n uint32) bool { return name == "b" && n == 1 }
		second.ask(eds, "a", "b", "c")
		second.hears("EDS +a:1 +b:1 +c:1", "EDS +a:1", "EDS +b:1", "EDS +c:1")
		p := w.proxy("edge-2")
		if len(p.Nacks) != 1 || strings.Join(p.Nacks[0].Names, " ") != "b" || !p.Holds(map[resource.Ref]string{ref(eds, "a"): "", ref(eds, "c"): ""}) {
			t.Errorf("%+v", p)
		}
		w.Publish([]resource.Resource{res(t, eds, "a", 1), res(t, eds, "b", 2), res(t, eds, "c", 1)})
		second.hears("EDS +b:2")
		if p := w.proxy("edge-2"); len(p.Nacks) != 0 {
			t.Errorf("%+v", p.Nacks)
		}
	})
}
