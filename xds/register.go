package xds

import (
	"context"

	clusters "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpoints "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	extensions "github.com/envoyproxy/go-control-plane/envoy/service/extension/v3"
	listeners "github.com/envoyproxy/go-control-plane/envoy/service/listener/v3"
	routes "github.com/envoyproxy/go-control-plane/envoy/service/route/v3"
	runtimes "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	secrets "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	gcpstream "github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
	gcp "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Register adds to g the aggregated and the per-type discovery services, both
// protocols each. Streams end when g stops or the proxy leaves; g.GracefulStop
// would wait for the proxies.
//
// go-control-plane has the services and the order of their calls. The stream
// loops are ours, because its caches are told neither which stream a watch
// belongs to nor when a response was acknowledged.
func (s *Server) Register(g *grpc.Server) {
	h := handlers{s}
	all := gcp.NewServerAdvanced(h, h, h)
	discovery.RegisterAggregatedDiscoveryServiceServer(g, all)
	clusters.RegisterClusterDiscoveryServiceServer(g, all)
	endpoints.RegisterEndpointDiscoveryServiceServer(g, all)
	listeners.RegisterListenerDiscoveryServiceServer(g, all)
	routes.RegisterRouteDiscoveryServiceServer(g, all)
	runtimes.RegisterRuntimeDiscoveryServiceServer(g, all)
	extensions.RegisterExtensionConfigDiscoveryServiceServer(g, all)
	secrets.RegisterSecretDiscoveryServiceServer(g, all)
}

// handlers is what go-control-plane's services call.
type handlers struct{ s *Server }

func (h handlers) DeltaStreamHandler(s gcpstream.DeltaStream, typeURL string) error {
	return h.s.serve(s.Context(), deltaProtocol{s}, typeURL)
}

func (h handlers) StreamHandler(s gcpstream.Stream, typeURL string) error {
	return h.s.serve(s.Context(), sotwProtocol{s}, typeURL)
}

// Fetch is polling, which would acknowledge nothing.
func (handlers) Fetch(context.Context, *discovery.DiscoveryRequest) (*discovery.DiscoveryResponse, error) {
	return nil, status.Error(codes.Unimplemented, "polling is not served; use a stream")
}
