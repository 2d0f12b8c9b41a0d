package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	proxyprotocolv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// listener holds nothing that a rollout, a service or a certificate's content
// can change: its bytes stay the same for as long as it exists.
func listener(l edge.Listener) *listenerv3.Listener {
	addr := address(l.Address)
	if l.Address.Addr().IsUnspecified() && l.Address.Addr().Is6() {
		addr.GetSocketAddress().Ipv4Compat = true
	}
	chain := &listenerv3.FilterChain{Name: "all", TransportSocket: transport(l)}
	if l.Protocol == edge.TCP {
		chain.Filters = []*listenerv3.Filter{rawStorm(l), tcpFilter(l.Name)}
	} else {
		chain.Filters = []*listenerv3.Filter{httpFilter(l)}
	}
	m := &listenerv3.Listener{
		Name:                          l.Name,
		StatPrefix:                    escape(l.Name),
		Address:                       addr,
		FilterChains:                  []*listenerv3.FilterChain{chain},
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(bufferLimit),
		TcpKeepalive:                  keepalive(),
		TrafficDirection:              corev3.TrafficDirection_INBOUND,
		// A worker that wakes up for a connection would else take all that have come
		// meanwhile, also those that were started after the main thread has
		// acknowledged a switch of which this worker hears next.
		MaxConnectionsToAcceptPerSocketEvent: wrapperspb.UInt32(1),
	}
	if l.ProxyProtocol != "" {
		m.ListenerFilters = []*listenerv3.ListenerFilter{{
			Name: "envoy.filters.listener.proxy_protocol",
			ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: packed(&proxyprotocolv3.ProxyProtocol{
				AllowRequestsWithoutProxyProtocol: l.ProxyProtocol == edge.Optional,
			})},
		}}
	}
	return m
}

// listening is the Listener, as proxies are told it.
func listening(l edge.Listener) resource.Resource {
	var after []resource.Ref
	for _, c := range collectors(l) {
		if c.Type == ClusterType {
			after = append(after, c.Ref)
		}
	}
	m := listener(l)
	r := resource.New(l.Name, m, after...)
	if r.Earlier = earlier(l); l.Protocol != edge.TCP {
		r.Extension, r.Instead = DoorType, slotted(m)
	}
	return r
}

func tcpFilter(name string) *listenerv3.Filter {
	return &listenerv3.Filter{
		Name: name, // also the name of the extension config that is asked for
		ConfigType: &listenerv3.Filter_ConfigDiscovery{ConfigDiscovery: &corev3.ExtensionConfigSource{
			ConfigSource: ads(),
			TypeUrls:     []string{tcpProxyType},
			// No default: Envoy would fall back to it for ever, and it would have
			// to name one colour.
		}},
	}
}
