package envoy

import (
	"slices"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	grpcwebv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	sessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/envoy/edge"
)

// streams is how many a client may have open in one HTTP/2 connection: more than
// the 100 that edge proxies like, because ours stay open.
const streams = 1000

// Names of the HTTP filters that routes refer to.
const (
	sessionFilter = "envoy.filters.http.stateful_session"
	grpcWebFilter = "envoy.filters.http.grpc_web"
)

// lingers is how long Envoy waits, after it has written all that a client is sent last,
// before it closes the connection: whoever waits for that after a close frame waits so long.
const lingers = 100 * time.Millisecond

// hostOfHTTP10 is the host that a request without one has, which HTTP/1.0 allows.
const hostOfHTTP10 = "localhost"

// httpFilter is all that an HTTP Listener will ever do with requests but for what it is
// told in routes and extension configs. What some service may need one day is there from
// the first one, and off.
func httpFilter(l edge.Listener) *listenerv3.Filter {
	m := &hcmv3.HttpConnectionManager{
		StatPrefix: escape(l.Name),
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
			ConfigSource: ads(), RouteConfigName: l.Name,
		}},
		HttpFilters:          httpFilters(l),
		UpgradeConfigs:       []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},
		HttpProtocolOptions:  downstreamHTTP1(),
		Http2ProtocolOptions: downstreamHTTP2(l),
		// A silent stream is a live stream; keepalive finds the dead ones.
		StreamIdleTimeout:    durationpb.New(0),
		DelayedCloseTimeout:  durationpb.New(lingers),
		ServerName:           "sluice",
		UseRemoteAddress:     wrapperspb.Bool(true),
		NormalizePath:        wrapperspb.Bool(true),
		StripTrailingHostDot: true,
		// x-envoy-downstream-service-node: routes and instances see which Envoy a request
		// came through, whatever its client says.
		AddUserAgent:      wrapperspb.Bool(true),
		XffNumTrustedHops: uint32(l.TrustedHops),
		LocalReplyConfig:  later(),
	}
	if log := httpLog(l); log != nil {
		m.AccessLog = log
		m.AccessLogOptions = &hcmv3.HttpConnectionManager_HcmAccessLogOptions{FlushLogOnTunnelSuccessfullyEstablished: true}
	}
	if l.Tracing != nil {
		m.Tracing = tracing(l)
	}
	if l.TLS != nil && l.TLS.ClientCA != "" {
		m.ForwardClientCertDetails = hcmv3.HttpConnectionManager_SANITIZE_SET
		m.SetCurrentClientCertDetails = &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{Subject: wrapperspb.Bool(true), Dns: true, Uri: true}
	}
	return &listenerv3.Filter{
		Name:       "envoy.filters.network.http_connection_manager",
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(m)},
	}
}

// httpFilters are a request's way to the router. Each but the storm guard does nothing until
// a route has it do something.
func httpFilters(l edge.Listener) []*hcmv3.HttpFilter {
	filter := func(name string, m proto.Message) *hcmv3.HttpFilter {
		return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed(m)}}
	}
	// Disabled: it would translate for instances that speak gRPC-Web themselves, too.
	web := filter(grpcWebFilter, &grpcwebv3.GrpcWeb{})
	web.Disabled = true
	return slices.Concat([]*hcmv3.HttpFilter{httpStorm(l)}, door(l.Name, true), []*hcmv3.HttpFilter{
		web,
		filter(sessionFilter, &sessionv3.StatefulSession{}),
		filter("envoy.filters.http.router", &routerv3.Router{}),
	})
}

// downstreamHTTP1 takes what old balancers and clients send. An offer to upgrade to anything but a
// WebSocket is no reason to refuse a request; the pattern says "not websocket" in the words
// of RE2, in any case, as the whole header or one offer of several.
func downstreamHTTP1() *corev3.Http1ProtocolOptions {
	return &corev3.Http1ProtocolOptions{
		AcceptHttp_10:         true,
		DefaultHostForHttp_10: hostOfHTTP10,
		IgnoreHttp_11Upgrade: []*matcherv3.StringMatcher{{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
			SafeRegex: &matcherv3.RegexMatcher{Regex: `(?i)([^w].*|w[^e].*|we[^b].*|web[^s].*)`},
		}}},
	}
}

// downstreamHTTP2 allows extended CONNECT (RFC 8441): a browser that has an HTTP/2 connection
// opens its WebSockets in it. See webSocketKey for what Envoy leaves out then.
func downstreamHTTP2(l edge.Listener) *corev3.Http2ProtocolOptions {
	o := windows()
	o.MaxConcurrentStreams = wrapperspb.UInt32(streams)
	o.AllowConnect = !l.HTTP1WebSockets
	return o
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
