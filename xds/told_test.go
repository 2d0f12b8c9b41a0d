package xds_test

import (
	"testing"
	"testing/synctest"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// A proxy that does not say that it has an extension is told what does not need it, and keeps
// it over a reconnect.
func TestAProxyIsToldWhatItCanTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		modern := func(n int) resource.Resource {
			r := res(t, lds, "web", uint32(n))
			r.Extension, r.Instead = "door", res(t, lds, "web", uint32(100+n)).Message
			return r
		}
		w := start(t, modern(1))
		ext := func(typeURLs ...string) []*core.Extension { return []*core.Extension{{Name: "x", TypeUrls: typeURLs}} }
		for node, of := range map[string]struct {
			has  []*core.Extension
			want string
		}{
			"has":      {ext("window", "door"), "LDS +web:1"},
			"silent":   {nil, "LDS +web:101"},
			"other":    {ext("window", "unheard"), "LDS +web:101"},
			"disabled": {[]*core.Extension{{TypeUrls: []string{"door"}, Disabled: true}}, "LDS +web:101"},
		} {
			c := &client{t: t, node: node, has: of.has, held: map[string]map[string]string{}, hold: map[string]bool{}}
			c.connect(w)
			c.ask(lds)
			c.hears(of.want)
			c.close()
			c.connect(w)
			c.ask(lds)
			c.hears()
			synctest.Wait()
			if p := w.proxy(node); len(p.Withheld) > 0 || !p.Holds(map[resource.Ref]string{ref(lds, "web"): ""}) {
				t.Errorf("%s: withheld %v, holds %v", node, p.Withheld, p.Acknowledged)
			}
			c.close()
		}
		other := res(t, lds, "web", 1)
		other.Extension, other.Instead = "door", res(t, lds, "web", 200).Message
		w.Publish([]resource.Resource{other})
		c := w.client("late")
		defer c.close()
		c.ask(lds)
		c.hears("LDS +web:200")
	})
}

// What is behind another resource comes after the proxy's answer to that, be it a refusal; what
// the proxy has never held comes at once.
func TestAResourceComesBehindAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		behind := func(n uint32) resource.Resource {
			r := res(t, eds, "a", n)
			r.Behind = []resource.Ref{ref(rds, "web")}
			return r
		}
		set := func(n uint32) []resource.Resource {
			return []resource.Resource{res(t, cds, "a", 1), behind(n), res(t, rds, "web", n, ref(cds, "a"))}
		}
		w := start(t, set(1)...)
		c := w.client("edge-1")
		defer c.close()
		c.ask(cds)
		c.ask(eds, "a")
		c.hears("CDS +a:1", "EDS +a:1")
		c.ask(rds, "web")
		c.hears("RDS +web:1")
		c.hold[rds] = true
		w.Publish(set(2))
		c.hears("RDS +web:2")
		c.release(rds)
		c.hears("EDS +a:2")
		c.refuse = func(typeURL, _ string, n uint32) bool { return typeURL == rds && n == 3 }
		w.Publish(set(3))
		c.hears("RDS +web:3", "EDS +a:3")
	})
}
