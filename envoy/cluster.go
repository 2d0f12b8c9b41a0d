package envoy

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	upstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/xds/resource"
)

const (
	// unlimited stands for "no circuit breaker": at Envoy's default of 1024 the
	// next WebSocket would hang instead of failing.
	unlimited = 1_000_000
	// bufferLimit bounds what Envoy holds per connection and direction, since
	// most connections here are open and idle.
	bufferLimit = 32 << 10
	// fetchTimeout is how long a cluster or listener waits for what it needs
	// before it starts without.
	fetchTimeout = 5 * time.Second
)

// cluster is the permanent cluster of one colour. It has no outlier detection
// and nothing that closes connections when health or hosts change.
func cluster(s edge.Service, colour discovery.Colour) resource.Resource {
	name := ClusterName(s.Name, colour)
	c := &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads()},
		ConnectTimeout:       durationpb.New(time.Second),
		// Not least-request: it counts open WebSockets and would send a stampede
		// to an instance that has just started.
		LbPolicy: clusterv3.Cluster_ROUND_ROBIN,
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{
			// Without this Envoy ignores DRAINING once most hosts are draining.
			HealthyPanicThreshold: &typev3.Percent{Value: 0},
			// Without this DRAINING takes effect up to a second after the ACK.
			UpdateMergeWindow: durationpb.New(0),
		},
		IgnoreHealthOnHostRemoval: true,
		CircuitBreakers: &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{
			breakers(corev3.RoutingPriority_DEFAULT), breakers(corev3.RoutingPriority_HIGH),
		}},
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(bufferLimit),
		UpstreamConnectionOptions:     &clusterv3.UpstreamConnectionOptions{TcpKeepalive: keepalive()},
	}
	if s.Affinity != nil {
		c.CommonLbConfig.OverrideHostStatus = honoured()
	}
	if s.Protocol != edge.TCP {
		c.TypedExtensionProtocolOptions = map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": packed(protocol(s.HTTP2)),
		}
	}
	return ofService(s.Name, resource.New(name, c))
}

func breakers(p corev3.RoutingPriority) *clusterv3.CircuitBreakers_Thresholds {
	return &clusterv3.CircuitBreakers_Thresholds{
		Priority:           p,
		MaxConnections:     wrapperspb.UInt32(unlimited),
		MaxPendingRequests: wrapperspb.UInt32(unlimited),
		MaxRequests:        wrapperspb.UInt32(unlimited),
		MaxRetries:         wrapperspb.UInt32(unlimited),
	}
}

// protocol is what instances are spoken to in; see Service.HTTP2.
func protocol(http2 bool) *upstreamv3.HttpProtocolOptions {
	if !http2 {
		return &upstreamv3.HttpProtocolOptions{
			UpstreamProtocolOptions: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_{
				ExplicitHttpConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig{
					ProtocolConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
						HttpProtocolOptions: &corev3.Http1ProtocolOptions{},
					},
				},
			},
		}
	}
	return &upstreamv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &upstreamv3.HttpProtocolOptions_UseDownstreamProtocolConfig{
			UseDownstreamProtocolConfig: &upstreamv3.HttpProtocolOptions_UseDownstreamHttpConfig{
				HttpProtocolOptions:  &corev3.Http1ProtocolOptions{},
				Http2ProtocolOptions: windows(),
			},
		},
	}
}

// windows bounds what HTTP/2 may have in flight: Envoy's own default is 256 MiB
// for each stream.
func windows() *corev3.Http2ProtocolOptions {
	return &corev3.Http2ProtocolOptions{
		InitialStreamWindowSize:     wrapperspb.UInt32(64 << 10),
		InitialConnectionWindowSize: wrapperspb.UInt32(1 << 20),
	}
}

// keepalive finds dead peers within 90 s, since no timeout ends a silent stream.
func keepalive() *corev3.TcpKeepalive {
	return &corev3.TcpKeepalive{
		KeepaliveTime:     wrapperspb.UInt32(60),
		KeepaliveInterval: wrapperspb.UInt32(10),
		KeepaliveProbes:   wrapperspb.UInt32(3),
	}
}

// ads says that a resource comes over the one aggregated stream.
func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
		InitialFetchTimeout:   durationpb.New(fetchTimeout),
	}
}
