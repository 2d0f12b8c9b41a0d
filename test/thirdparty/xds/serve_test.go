package xds_test

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	gcp "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/xds"
	"github.com/sluice-proxy/sluice/xds/resource"
)

const eds = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"

// serveAs is the variable that makes this program a server: which one, and of how many resources.
const serveAs = "SLUICE_XDS_BENCH"

func TestMain(m *testing.M) {
	var kind string
	var resources int
	if n, _ := fmt.Sscan(os.Getenv(serveAs), &kind, &resources); n == 2 {
		serve(kind, resources)
		return
	}
	os.Exit(m.Run())
}

func named(i int) string { return fmt.Sprintf("svc-%04d", i) }

// assignment is ten endpoints whose weight says n.
func assignment(name string, n uint32) *endpoint.ClusterLoadAssignment {
	var all []*endpoint.LbEndpoint
	for i := range 10 {
		all = append(all, &endpoint.LbEndpoint{
			LoadBalancingWeight: wrapperspb.UInt32(n),
			HostIdentifier: &endpoint.LbEndpoint_Endpoint{Endpoint: &endpoint.Endpoint{Address: &core.Address{Address: &core.Address_SocketAddress{
				SocketAddress: &core.SocketAddress{Address: fmt.Sprintf("10.0.0.%d", i+1), PortSpecifier: &core.SocketAddress_PortValue{PortValue: 80}},
			}}}},
		})
	}
	return &endpoint.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpoint.LocalityLbEndpoints{{LbEndpoints: all}}}
}

// servers are what is compared: each returns how one resource is changed.
var servers = map[string]func(resources int) (g *grpc.Server, change func(i int, n uint32) error){
	"sluice": func(resources int) (*grpc.Server, func(int, uint32) error) {
		g := grpc.NewServer(xds.ServerOptions()...)
		s := xds.New(xds.Options{Logger: slog.New(slog.DiscardHandler), OnePerResponse: []string{eds}})
		set := make([]resource.Resource, resources)
		for i := range set {
			set[i] = resource.New(named(i), assignment(named(i), 1))
		}
		s.Register(g)
		if err := s.Publish(set); err != nil {
			log.Fatal(err)
		}
		return g, func(i int, n uint32) error {
			set = slices.Clone(set)
			set[i] = resource.New(named(i), assignment(named(i), n))
			return s.Publish(set)
		}
	},
	"LinearCache": func(resources int) (*grpc.Server, func(int, uint32) error) {
		g := grpc.NewServer()
		all := map[string]types.Resource{}
		for i := range resources {
			all[named(i)] = assignment(named(i), 1)
		}
		c := cache.NewLinearCache(eds, cache.WithInitialResources(all))
		discovery.RegisterAggregatedDiscoveryServiceServer(g, gcp.NewServer(context.Background(), c, nil))
		return g, func(i int, n uint32) error { return c.UpdateResource(named(i), assignment(named(i), n)) }
	},
	"SnapshotCache": func(resources int) (*grpc.Server, func(int, uint32) error) {
		g := grpc.NewServer()
		c := cache.NewSnapshotCache(false, everybody{}, nil)
		all := make([]types.Resource, resources)
		for i := range all {
			all[i] = assignment(named(i), 1)
		}
		version := 0
		change := func(i int, n uint32) error {
			version++
			all = slices.Clone(all)
			all[i] = assignment(named(i), n)
			s, err := cache.NewSnapshot(fmt.Sprint(version), map[string][]types.Resource{eds: all})
			if err != nil {
				return err
			}
			return c.SetSnapshot(context.Background(), everybody{}.ID(nil), s)
		}
		if err := change(0, 1); err != nil {
			log.Fatal(err)
		}
		discovery.RegisterAggregatedDiscoveryServiceServer(g, gcp.NewServer(context.Background(), c, nil))
		return g, change
	},
}

// everybody gets the same.
type everybody struct{}

func (everybody) ID(*core.Node) string { return "all" }

// serve does what standard input says, a line each, and answers each with a line: "heap", "cpu", "change I N"
// or "churn SECONDS RATE", which changes one resource after the other, each to the milliseconds since.
func serve(kind string, resources int) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	g, change := servers[kind](resources)
	go func() { log.Fatal(g.Serve(lis)) }() // ends with the process
	fmt.Println(lis.Addr())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var verb string
		var a, b int64
		_, _ = fmt.Sscan(in.Text(), &verb, &a, &b)
		began := time.Now()
		switch verb {
		case "heap":
			runtime.GC()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			fmt.Println(m.HeapAlloc + m.StackInuse)
		case "cpu":
			var u syscall.Rusage
			if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
				log.Fatal(err)
			}
			fmt.Println(time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds())
		case "change":
			if err := change(int(a), uint32(b)); err != nil {
				log.Fatal(err)
			}
			fmt.Println(time.Since(began).Nanoseconds())
		case "churn":
			changes := 0
			for tick := range time.Tick(time.Second / time.Duration(b)) {
				if tick.Sub(began) > time.Duration(a)*time.Second {
					break
				}
				changes++
				if err := change(changes%resources, uint32(time.Since(began).Milliseconds())+1); err != nil {
					log.Fatal(err)
				}
			}
			fmt.Println(changes)
		}
	}
}
