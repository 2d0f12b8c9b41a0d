package envoy

import (
	"net/netip"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	tracev3 "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	upstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/units"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// The clusters of what a listener sends its log and its spans to. No service's cluster is
// named so: escape writes a "_" twice, or before two hex digits.
func logCluster(l edge.Listener) string   { return "sluice_log_" + escape(l.Name) }
func traceCluster(l edge.Listener) string { return "sluice_trace_" + escape(l.Name) }

// collectors are the clusters that a listener sends to beside its services', each with its
// endpoint. They last as long as the listener.
func collectors(l edge.Listener) []resource.Resource {
	var out []resource.Resource
	if l.AccessLog.GRPC.IsValid() {
		out = append(out, collector(logCluster(l), l.AccessLog.GRPC)...)
	}
	if l.Tracing != nil {
		out = append(out, collector(traceCluster(l), l.Tracing.GRPC)...)
	}
	return out
}

func collector(name string, at netip.AddrPort) []resource.Resource {
	c := &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads()},
		ConnectTimeout:       durationpb.New(time.Second),
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": packed(&upstreamv3.HttpProtocolOptions{
				UpstreamProtocolOptions: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_{
					ExplicitHttpConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig{
						ProtocolConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
							Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
								// One that is frozen, not closed, is left after this long.
								ConnectionKeepalive: &corev3.KeepaliveSettings{Interval: durationpb.New(5 * time.Second), Timeout: durationpb.New(3 * time.Second)},
							},
						},
					},
				},
			}),
		},
	}
	e := &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
		Locality: &corev3.Locality{},
		LbEndpoints: []*endpointv3.LbEndpoint{{
			HostIdentifier:      &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address(unmapped(at))}},
			HealthStatus:        corev3.HealthStatus_HEALTHY,
			LoadBalancingWeight: wrapperspb.UInt32(1),
		}},
	}}}
	return []resource.Resource{resource.New(name, c), resource.New(name, e)}
}

// collected is a service of the one that a cluster reaches.
func collected(cluster string) *corev3.GrpcService {
	return &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: cluster}}}
}

// tracing samples by itself what no client asks for.
func tracing(l edge.Listener) *hcmv3.HttpConnectionManager_Tracing {
	percent := func(s units.Share) *typev3.Percent {
		return &typev3.Percent{Value: 100 * float64(s) / float64(units.Whole)}
	}
	return &hcmv3.HttpConnectionManager_Tracing{
		ClientSampling: percent(0), // x-client-trace-id: any client may send it
		RandomSampling: percent(l.Tracing.Sample),
		CustomTags:     tags(),
		Provider: &tracev3.Tracing_Http{
			Name: "envoy.tracers.opentelemetry",
			ConfigType: &tracev3.Tracing_Http_TypedConfig{TypedConfig: packed(&tracev3.OpenTelemetryConfig{
				GrpcService: collected(traceCluster(l)), ServiceName: "sluice-" + l.Name,
			})},
		},
	}
}
