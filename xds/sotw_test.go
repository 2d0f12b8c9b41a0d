package xds_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/xds/resource"
)

func TestStateOfTheWorld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, res(t, cds, "a", 1), res(t, cds, "b", 1), res(t, eds, "a", 1), res(t, lds, "web", 1), res(t, rds, "web", 1, ref(cds, "b")))
		c := w.sotw("edge-1")
		defer c.close()
		c.ask(cds)
		c.ask(eds, "a", "none")
		c.ask(lds)
		c.ask(rds, "web")
		c.hears("CDS +a:1 +b:1", "EDS +a:1", "LDS +web:1", "RDS +web:1")
		if p := w.proxy("edge-1"); len(p.Acknowledged) != 5 {
			t.Errorf("holds %v", p.Acknowledged)
		}
		// Listeners and clusters come whole: a listener that is withheld is repeated
		// as it was, or it would be removed.
		w.Publish([]resource.Resource{res(t, cds, "a", 2), res(t, cds, "b", 1), res(t, eds, "a", 1), res(t, lds, "web", 2), res(t, lds, "tcp", 1), res(t, rds, "web", 1, ref(cds, "b"))})
		c.hears("CDS +a:2 +b:1", "EDS +a:1", "LDS +tcp:1 +web:1")
		w.Publish([]resource.Resource{res(t, cds, "a", 2), res(t, eds, "a", 1), res(t, lds, "web", 2), res(t, lds, "tcp", 1), res(t, rds, "web", 2, ref(cds, "a"))})
		c.hears("RDS +web:2", "CDS +a:2") // the old cluster last
		if got := w.proxy("edge-1").Withheld; len(got) != 1 || got[0].Ref != ref(lds, "web") {
			t.Errorf("withheld %+v", got)
		}
	})
}

func TestStateOfTheWorldAfterARestartRemovesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := []resource.Resource{res(t, cds, "a", 1), res(t, lds, "web", 1)}
		c := start(t, set...).sotw("edge-1")
		c.ask(cds)
		c.ask(lds)
		c.hears("CDS +a:1", "LDS +web:1")

		c.close() // equal sets: nothing is sent, everything counts as held
		w := start(t, set...)
		c.connect(w)
		c.ask(cds)
		c.ask(lds)
		c.hears()
		if p := w.proxy("edge-1"); len(p.Acknowledged) != 2 {
			t.Errorf("holds %v", p.Acknowledged)
		}
		c.close() // other sets: what is not known would be lost, so the type is withheld
		w = start(t, res(t, cds, "b", 1), res(t, lds, "web", 2), res(t, lds, "tcp", 1))
		c.connect(w)
		c.ask(cds)
		c.ask(lds)
		c.hears()
		if got := w.proxy("edge-1").Withheld; len(got) != 3 {
			t.Errorf("withheld %+v", got)
		}
		c.close() // and so are they from a proxy that another control plane has told
		c.version[cds], c.version[lds] = "17", "17"
		c.connect(w)
		c.ask(cds)
		c.ask(lds)
		c.hears()
		c.close()
	})
}

func TestNackStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, res(t, cds, "a", 1), res(t, cds, "b", 1), res(t, rds, "web", 1))
		s, d := w.sotw("edge-1"), w.client("edge-2")
		defer s.close()
		defer d.close()
		s.refuse = func(_, _ string, _ uint32) bool { return true }
		d.refuse = s.refuse
		s.ask(cds)
		d.ask(cds)
		s.hears("CDS +a:1 +b:1", "CDS +a:1", "CDS +b:1")
		d.hears("CDS +a:1 +b:1", "CDS +a:1", "CDS +b:1")
		s.ask(rds, "web")
		d.ask(rds, "web")
		s.hears("RDS +web:1")
		d.hears("RDS +web:1")
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, node := range []string{"edge-1", "edge-2"} {
			// Each of the three again after 1, 2, 4, 8 and 16 s.
			if p := w.proxy(node); p.NackCount != 4+3*5 || len(p.Nacks) != 3 {
				t.Errorf("%s refused %d times", node, p.NackCount)
			}
		}
	})
}
