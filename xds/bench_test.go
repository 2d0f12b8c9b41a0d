package xds_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	gcp "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/sluice-proxy/sluice/xds"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// BenchmarkPublish publishes one changed endpoint set to 1000 streams with 1000
// subscribed resources each, and waits until every stream has it. The 99th
// percentile of that wait is p99-ms.
func BenchmarkPublish(b *testing.B) {
	const streams, resources = 1000, 1000
	b.Run("change-log", func(b *testing.B) {
		s := xds.New(xds.Options{Logger: slog.New(slog.DiscardHandler), OnePerResponse: []string{eds}})
		set, names := endpoints(b, resources, 1)
		publish := func(set []resource.Resource) {
			if err := s.Publish(set); err != nil {
				b.Fatal(err)
			}
		}
		publish(set)
		crowd := join(b, s.Register, names, streams)
		crowd.measure(b, func(n uint32) {
			changed := slices.Clone(set)
			changed[0] = res(b, eds, names[0], n)
			publish(changed)
		})
	})
	b.Run("LinearCache", func(b *testing.B) {
		content := map[string]types.Resource{}
		set, names := endpoints(b, resources, 1)
		for _, r := range set {
			content[r.Name] = r.Message.(*endpoint.ClusterLoadAssignment)
		}
		c := cache.NewLinearCache(eds, cache.WithInitialResources(content))
		s := gcp.NewServer(b.Context(), c, nil)
		crowd := join(b, func(g *grpc.Server) { discovery.RegisterAggregatedDiscoveryServiceServer(g, s) }, names, streams)
		crowd.measure(b, func(n uint32) {
			if err := c.UpdateResource(names[0], &endpoint.ClusterLoadAssignment{
				ClusterName: names[0], Endpoints: []*endpoint.LocalityLbEndpoints{{Priority: n}},
			}); err != nil {
				b.Fatal(err)
			}
		})
	})
}

// crowd is many delta streams that have everything.
type crowd struct {
	streams int
	newest  atomic.Uint32 // the content that is waited for
	have    atomic.Int64  // streams that have it
	all     chan struct{}
}

func join(b *testing.B, register func(*grpc.Server), names []string, streams int) *crowd {
	lis := bufconn.Listen(1 << 20)
	g := grpc.NewServer(xds.ServerOptions()...)
	register(g)
	var done sync.WaitGroup
	done.Go(func() { _ = g.Serve(lis) })
	c := &crowd{streams: streams, all: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(b.Context())
	var conns []*grpc.ClientConn
	b.Cleanup(func() {
		cancel()
		for _, conn := range conns {
			_ = conn.Close()
		}
		g.Stop()
		done.Wait()
	})
	dial := func() *grpc.ClientConn {
		conn, err := grpc.NewClient("passthrough:///bufconn", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
		if err != nil {
			b.Fatal(err)
		}
		conns = append(conns, conn)
		return conn
	}
	open := func(i int, conn *grpc.ClientConn, versions map[string]string) grpc.BidiStreamingClient[discovery.DeltaDiscoveryRequest, discovery.DeltaDiscoveryResponse] {
		str, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
		if err != nil {
			b.Fatal(err)
		}
		if err := str.Send(&discovery.DeltaDiscoveryRequest{
			Node: &core.Node{Id: fmt.Sprintf("edge-%04d", i)}, TypeUrl: eds,
			ResourceNamesSubscribe: names, InitialResourceVersions: versions,
		}); err != nil {
			b.Fatal(err)
		}
		return str
	}
	// The first stream learns the versions; the others connect again with them.
	versions := map[string]string{}
	first := open(0, dial(), nil)
	for len(versions) < len(names) {
		m, err := first.Recv()
		if err != nil {
			b.Fatal(err)
		}
		for _, r := range m.Resources {
			versions[r.Name] = r.Version
		}
		if err := first.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: eds, ResponseNonce: m.Nonce}); err != nil {
			b.Fatal(err)
		}
	}
	var conn *grpc.ClientConn
	for i := range streams {
		if i%50 == 0 {
			conn = dial()
		}
		str := open(i+1, conn, maps.Clone(versions))
		done.Go(func() { c.listen(b, str) })
	}
	return c
}

func (c *crowd) listen(b *testing.B, str grpc.BidiStreamingClient[discovery.DeltaDiscoveryRequest, discovery.DeltaDiscoveryResponse]) {
	var has uint32
	for {
		m, err := str.Recv()
		if err != nil {
			return
		}
		_ = str.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: eds, ResponseNonce: m.Nonce})
		for _, r := range m.Resources {
			if _, n := content(b, eds, r.Resource.Value); n == c.newest.Load() && n != has {
				has = n
				if c.have.Add(1) == int64(c.streams) {
					c.all <- struct{}{}
				}
			}
		}
	}
}

// measure publishes content after content, starting with one round that is not counted.
func (c *crowd) measure(b *testing.B, publish func(uint32)) {
	n := uint32(1)
	round := func() time.Duration {
		n++
		c.have.Store(0)
		c.newest.Store(n)
		began := time.Now()
		publish(n)
		<-c.all
		return time.Since(began)
	}
	round()
	var took []time.Duration
	for b.Loop() {
		took = append(took, round())
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}
