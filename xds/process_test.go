package xds_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	clusters "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// again opens the client's stream anew on the connection that it has, with what it holds.
func (c *client) again(types ...string) {
	c.t.Helper()
	c.done.Wait()
	if status.Code(c.err) != codes.Unavailable {
		c.t.Errorf("the stream of %s ended with %v", c.node, c.err)
	}
	c.open(aggregated)
	for _, typeURL := range types {
		c.ask(typeURL)
	}
}

// Two that live at once are two proxies: each is served, each has to acknowledge.
func TestTwoProcessesWithOneID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, res(t, cds, "a", 1))
		one, two := w.client("edge-1"), w.client("edge-1")
		defer one.close()
		defer two.close()
		one.ask(cds)
		one.hears("CDS +a:1")
		two.ask(cds)
		two.hears("CDS +a:1")
		if p := w.proxy("edge-1"); !p.Contested || len(w.Clients()) != 1 {
			t.Errorf("nobody knows yet whether they are two: %+v", w.Clients())
		}
		time.Sleep(11 * time.Second) // a dead connection would be noticed
		one.again(cds)
		two.again(cds)
		two.hold[cds] = true
		w.Publish([]resource.Resource{res(t, cds, "a", 2)})
		one.hears("CDS +a:2")
		two.hears("CDS +a:2")
		newest := map[resource.Ref]string{ref(cds, "a"): version(t, res(t, cds, "a", 2))}
		for name, holds := range map[string]bool{"edge-1": true, "edge-1 (2)": false} {
			if p := w.proxy(name); p.ID != "edge-1" || p.Contested || !p.Connected || p.Holds(newest) != holds {
				t.Errorf("%s: %+v", name, p)
			}
		}
		two.release(cds)
		synctest.Wait()
		if !w.proxy("edge-1 (2)").Holds(newest) {
			t.Error("the second one's acknowledgement does not count")
		}

		// Whichever comes back has the name of the one that is away.
		one.close()
		one.connect(w)
		one.ask(cds)
		one.hears()
		if all := w.Clients(); len(all) != 2 || !w.proxy("edge-1").Holds(newest) {
			t.Errorf("after a return: %+v", all)
		}
	})
}

// A connection that is dead and not noticed yet is the same proxy's as the new one.
func TestAReconnectIsOneProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, res(t, cds, "a", 1))
		dead, young := w.client("edge-1"), w.client("edge-1")
		defer young.close()
		dead.ask(cds)
		dead.hears("CDS +a:1")
		young.ask(cds)
		young.hears("CDS +a:1")
		time.Sleep(8 * time.Second)
		dead.close() // as by keepalive
		time.Sleep(time.Minute)
		if p := w.proxy("edge-1"); len(w.Clients()) != 1 || p.Contested || !p.Connected || young.err != nil {
			t.Errorf("%+v", w.Clients())
		}
	})
}

// A stream of one type and one of all types speak beside each other, in either order.
func TestPerTypeStreamBesideTheAggregatedOne(t *testing.T) {
	for _, first := range []string{"the one of a type", "the aggregated one"} {
		synctest.Test(t, func(t *testing.T) {
			w := start(t, res(t, cds, "a", 1), res(t, rds, "web", 1, ref(cds, "a")))
			all := w.client("edge-1")
			defer all.close()
			only := &client{t: t, node: "edge-1", conn: w.dial(), held: map[string]map[string]string{}}
			only.open(func(ctx context.Context, conn *grpc.ClientConn) (deltaStream, error) {
				return clusters.NewClusterDiscoveryServiceClient(conn).DeltaClusters(ctx)
			})
			defer only.close()
			if first == "the aggregated one" {
				all.ask(rds, "web")
				all.hears()
				only.ask("")
				only.hears("CDS +a:1")
				all.hears("RDS +web:1")
			} else {
				only.ask("")
				only.hears("CDS +a:1")
				all.ask(rds, "web")
				all.hears("RDS +web:1")
			}
			w.Publish([]resource.Resource{res(t, cds, "a", 2), res(t, rds, "web", 2, ref(cds, "a"))})
			only.hears("CDS +a:2")
			all.hears("RDS +web:2")
			if p := w.proxy("edge-1"); len(p.Acknowledged) != 2 || p.Contested || p.Streams != 2 {
				t.Errorf("with %s first: %+v", first, p)
			}
		})
	}
}
