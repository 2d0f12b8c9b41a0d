package xds_test

import (
	"strings"
	"testing"
	"testing/synctest"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// A version is of the content: an equal message that was built anew is no change, and
// what a resource needs is none that a proxy hears of.
func TestAnEqualSetChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, res(t, cds, "a", 1), res(t, rds, "web", 1))
		c := w.client("edge-1")
		defer c.close()
		c.ask(cds)
		c.ask(rds, "web")
		c.hears("CDS +a:1", "RDS +web:1")
		for range 2 {
			w.Publish([]resource.Resource{res(t, rds, "web", 1, ref(cds, "a")), res(t, cds, "a", 1)})
			c.hears()
		}
		for _, r := range []resource.Resource{res(t, cds, "a", 1), res(t, rds, "web", 1)} {
			if got := w.Versions()[r.Ref]; len(w.Versions()) != 2 || got != version(t, r) {
				t.Errorf("%s is published as %q of %v", r.Ref, got, w.Versions())
			}
		}
		w.Publish([]resource.Resource{res(t, rds, "web", 1, ref(cds, "a"))})
		c.hears() // the route, as it is known now, keeps its cluster
		if got := w.proxy("edge-1").Withheld; len(got) != 1 || !strings.Contains(got[0].Why, "still uses Cluster a in RouteConfiguration web") {
			t.Errorf("withheld %+v", got)
		}
	})
}

// What cannot be encoded is refused whole, by name.
func TestASetThatCannotBeEncodedIsNotPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, res(t, cds, "a", 1))
		c := w.client("edge-1")
		defer c.close()
		c.ask(cds)
		c.hears("CDS +a:1")
		bad := resource.New("b", &cluster.Cluster{Name: "b\xff"})
		if err := w.Server.Publish([]resource.Resource{res(t, cds, "a", 2), bad}); err == nil || !strings.Contains(err.Error(), "encode Cluster b: ") {
			t.Errorf("published with %v", err)
		}
		c.hears()
		if v := w.Versions(); len(v) != 1 || v[ref(cds, "a")] != version(t, res(t, cds, "a", 1)) {
			t.Errorf("published is %v", v)
		}
	})
}
