package envoy

import (
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// streams is how many a client may have open in one HTTP/2 connection: more than
// the 100 that edge proxies like, because ours stay open.
const streams = 1000

// listener holds nothing that a rollout, a service or a certificate's content
// can change: its bytes stay the same for as long as it exists.
func listener(l edge.Listener) resource.Resource {
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
	return resource.New(l.Name, &listenerv3.Listener{
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
	})
}

func httpFilter(l edge.Listener) *listenerv3.Filter {
	m := &hcmv3.HttpConnectionManager{
		StatPrefix: escape(l.Name),
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
			ConfigSource: ads(), RouteConfigName: l.Name,
		}},
		HttpFilters: []*hcmv3.HttpFilter{
			// Whether it is wanted or not: a filter cannot be added later without
			// changing the Listener.
			httpStorm(l),
			{Name: "envoy.filters.http.router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed(&routerv3.Router{})}},
		},
		UpgradeConfigs:       []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},
		Http2ProtocolOptions: http2(),
		// A silent stream is a live stream; keepalive finds the dead ones.
		StreamIdleTimeout:   durationpb.New(0),
		DelayedCloseTimeout: durationpb.New(time.Second),
		ServerName:          "sluice",
		UseRemoteAddress:    wrapperspb.Bool(true),
		NormalizePath:       wrapperspb.Bool(true),
		LocalReplyConfig:    later(),
	}
	if l.AccessLog != "" {
		m.AccessLog = accessLog(l)
		m.AccessLogOptions = &hcmv3.HttpConnectionManager_HcmAccessLogOptions{FlushLogOnTunnelSuccessfullyEstablished: true}
	}
	return &listenerv3.Filter{
		Name:       "envoy.filters.network.http_connection_manager",
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(m)},
	}
}

// later tells whom a limit turns away (UO) when to try again.
func later() *hcmv3.LocalReplyConfig {
	return &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{{
		Filter: &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{
			ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{Flags: []string{"UO"}},
		}},
		HeadersToAdd: []*corev3.HeaderValueOption{retryAfter()},
	}}}
}

// retryAfter is in seconds, the same as the drain library's.
func retryAfter() *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: "retry-after", Value: "1"}}
}

// http2 leaves allow_connect out. Without it a browser opens a WebSocket over
// HTTP/1.1 even where it has an HTTP/2 connection. With it, it sends an extended
// CONNECT, which carries no Sec-WebSocket-Key; Envoy passes that on as an
// HTTP/1.1 upgrade without a key, and every server refuses it.
func http2() *corev3.Http2ProtocolOptions {
	o := windows()
	o.MaxConcurrentStreams = wrapperspb.UInt32(streams)
	return o
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

func accessLog(l edge.Listener) []*accesslogv3.AccessLog {
	return []*accesslogv3.AccessLog{{
		Name: "envoy.access_loggers.file",
		ConfigType: &accesslogv3.AccessLog_TypedConfig{
			TypedConfig: packed(&filelogv3.FileAccessLog{Path: l.AccessLog}),
		},
	}}
}
