package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/xds/resource"
)

const tcpProxyType = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"

// tcp sends a TCP listener's connections to the colours by weight. A colour
// without weight is left out, because Envoy refuses a weight of 0 here. Nothing
// ends a silent connection but keepalive.
func tcp(l edge.Listener, s routed) resource.Resource {
	var clusters []*tcpv3.TcpProxy_WeightedCluster_ClusterWeight
	for _, c := range []discovery.Colour{discovery.Green, discovery.Blue} {
		if s.Weights[c] > 0 {
			clusters = append(clusters, &tcpv3.TcpProxy_WeightedCluster_ClusterWeight{
				Name: ClusterName(s.Name, c), Weight: uint32(s.Weights[c]),
			})
		}
	}
	m := &tcpv3.TcpProxy{
		StatPrefix: escape(l.Name),
		ClusterSpecifier: &tcpv3.TcpProxy_WeightedClusters{
			WeightedClusters: &tcpv3.TcpProxy_WeightedCluster{Clusters: clusters},
		},
		IdleTimeout:        durationpb.New(0),
		MaxConnectAttempts: wrapperspb.UInt32(3),
	}
	if log := rawLog(l); log != nil {
		m.AccessLog = log
		m.AccessLogOptions = &tcpv3.TcpProxy_TcpAccessLogOptions{FlushAccessLogOnConnected: true}
	}
	c := &corev3.TypedExtensionConfig{Name: l.Name, TypedConfig: packed(m)}
	return resource.New(l.Name, c, after(c)...)
}
