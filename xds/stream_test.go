package xds_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	clusters "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	routes "github.com/envoyproxy/go-control-plane/envoy/service/route/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sluice-proxy/sluice/xds/resource"
)

func TestTheNewestStreamIsTheProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, res(t, cds, "a", 1))
		old, young := w.client("edge-1"), w.client("edge-1")
		defer young.close()
		old.ask(cds)
		old.hears("CDS +a:1")
		young.ask(cds)
		young.hears("CDS +a:1")
		if p := w.proxy("edge-1"); p.Streams != 2 {
			t.Errorf("%d streams", p.Streams)
		}
		w.Publish([]resource.Resource{res(t, cds, "a", 2)})
		old.hears()
		young.hears("CDS +a:2")
		old.close()
		if p := w.proxy("edge-1"); !p.Connected || p.Streams != 1 || !p.Lost.IsZero() || !p.Holds(map[resource.Ref]string{ref(cds, "a"): version(t, res(t, cds, "a", 2))}) {
			t.Errorf("after the old stream's end: %+v", p)
		}
		// A stale stream that outlives the newest has to start over.
		third := w.client("edge-1")
		third.ask(cds)
		third.hears("CDS +a:2")
		third.close()
		if status.Code(young.err) != codes.Unavailable {
			t.Errorf("the stale stream ended with %v", young.err)
		}
	})
}

func TestPerTypeServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, res(t, cds, "a", 1), res(t, rds, "web", 1, ref(cds, "a")))
		c, r := &client{t: t, node: "edge-1", conn: w.dial(), held: map[string]map[string]string{}}, &client{t: t, node: "edge-1", conn: w.dial(), held: map[string]map[string]string{}}
		c.open(func(ctx context.Context, conn *grpc.ClientConn) (deltaStream, error) {
			return clusters.NewClusterDiscoveryServiceClient(conn).DeltaClusters(ctx)
		})
		r.open(func(ctx context.Context, conn *grpc.ClientConn) (deltaStream, error) {
			return routes.NewRouteDiscoveryServiceClient(conn).DeltaRoutes(ctx)
		})
		defer r.close()
		r.ask("", "web")
		r.hears()
		c.ask("")
		c.hears("CDS +a:1")
		r.hears("RDS +web:1") // woken by the other stream's acknowledgement
		if p := w.proxy("edge-1"); p.Streams != 2 || len(p.Acknowledged) != 2 {
			t.Errorf("%+v", p)
		}
		c.close()
		if p := w.proxy("edge-1"); !p.Connected {
			t.Error("one of two streams is left, and the proxy counts as lost")
		}
	})
}

func TestALostProxyIsForgottenAfterAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, res(t, cds, "a", 1))
		c := w.client("edge-1")
		c.ask(cds)
		c.hears("CDS +a:1")
		<-w.Changed()
		c.close()
		<-w.Changed()
		time.Sleep(time.Hour - time.Second)
		if n := len(w.Clients()); n != 1 {
			t.Errorf("%d proxies after less than an hour", n)
		}
		time.Sleep(2 * time.Second)
		if n := len(w.Clients()); n != 0 {
			t.Errorf("%d proxies after more than an hour", n)
		}
	})
}

func TestAStreamWithoutANodeIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		c := w.client("")
		c.ask(cds)
		synctest.Wait()
		if status.Code(c.err) != codes.InvalidArgument {
			t.Errorf("ended with %v", c.err)
		}
		c.close()
	})
}
