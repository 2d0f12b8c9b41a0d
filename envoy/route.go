package envoy

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// routes is the one RouteConfiguration of an HTTP listener, named as the
// listener. What matches no service gets 404.
func routes(l edge.Listener, leaving []string, services []routed) resource.Resource {
	slices.SortFunc(services, func(a, b routed) int {
		return cmp.Or(cmp.Compare(len(b.Path()), len(a.Path())), strings.Compare(a.Path(), b.Path()), cmp.Compare(a.Name, b.Name))
	})
	of := map[string][]routed{} // by host, in the order above
	for _, s := range services {
		for _, h := range s.Hosts() {
			of[h] = append(of[h], s)
		}
	}
	// A host may stand in one virtual host only, so hosts with the same services
	// share one.
	hosts := map[string][]string{}
	for _, h := range slices.Sorted(maps.Keys(of)) {
		var key strings.Builder
		for _, s := range of[h] {
			fmt.Fprintf(&key, "%q", s.Name)
		}
		hosts[key.String()] = append(hosts[key.String()], h)
	}
	groups := slices.SortedFunc(maps.Values(hosts), slices.Compare)
	health := healthRoutes(l.Health, leaving)
	m := &routev3.RouteConfiguration{Name: l.Name, IgnorePortInHostMatching: true}
	for _, group := range groups {
		v := &routev3.VirtualHost{Name: group[0], Domains: group, Routes: slices.Clone(health)}
		for _, s := range of[group[0]] {
			v.Routes = append(v.Routes, serviceRoutes(s)...)
		}
		m.VirtualHosts = append(m.VirtualHosts, v)
	}
	if len(health) > 0 && of["*"] == nil {
		m.VirtualHosts = append(m.VirtualHosts, &routev3.VirtualHost{Name: "*", Domains: []string{"*"}, Routes: health})
	}
	r := resource.New(l.Name, m, after(m)...)
	for _, s := range services {
		r.Keep = cmp.Or(r.Keep, s.Unsettled)
	}
	return r
}

// healthRoutes answer a balancer's question whether an Envoy takes new connections, one for all
// Envoys: each says its name in a header, whatever the client says.
func healthRoutes(path string, leaving []string) []*routev3.Route {
	if path == "" {
		return nil
	}
	answer := func(status uint32, of ...*routev3.HeaderMatcher) *routev3.Route {
		return &routev3.Route{
			Name:   "health",
			Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: path}, Headers: of},
			Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: status}},
		}
	}
	var out []*routev3.Route
	for _, node := range leaving {
		out = append(out, answer(503, header("x-envoy-downstream-service-node", &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: node}})))
	}
	return append(out, answer(200))
}

// serviceRoutes send one service's requests to its colours. The first that matches counts.
func serviceRoutes(s routed) []*routev3.Route {
	if s.Unsettled != "" {
		return []*routev3.Route{unsettled(s)}
	}
	return append(holds(s), webSocketKey(s), read(s), route(s))
}

// match is what belongs to a service under its host.
func match(s routed) *routev3.RouteMatch {
	if p := s.Path(); p != "/" {
		return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: p}}
	}
	return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
}

// unsettled answers for a service of which it is not known where its requests should go.
func unsettled(s routed) *routev3.Route {
	return &routev3.Route{
		Name: escape(string(s.Name)), Match: match(s), Metadata: owned(s.Name),
		ResponseHeadersToAdd: []*corev3.HeaderValueOption{retryAfter()},
		Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
			Status: 503, Body: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: s.Unsettled + "\n"}},
		}},
	}
}

// route sends requests to the colours by weight. A plain request and a stream that lasts for
// days look alike here, so no timeout ends either.
func route(s routed) *routev3.Route {
	weight := func(c discovery.Colour) *routev3.WeightedCluster_ClusterWeight {
		return &routev3.WeightedCluster_ClusterWeight{
			Name: ClusterName(s.Name, c), Weight: wrapperspb.UInt32(uint32(s.Weights[c])),
		}
	}
	r := &routev3.Route{
		Name:     escape(string(s.Name)),
		Match:    match(s),
		Metadata: owned(s.Name),
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_WeightedClusters{WeightedClusters: &routev3.WeightedCluster{
				// Constant order and sum: with a hash policy, raising green only
				// ever moves users towards green.
				Clusters: []*routev3.WeightedCluster_ClusterWeight{weight(discovery.Green), weight(discovery.Blue)},
			}},
			Timeout:     durationpb.New(0),
			IdleTimeout: durationpb.New(0),
			RetryPolicy: retry("connect-failure"),
		}},
	}
	sticky(s, r)
	return r
}

// read is route for requests that may be sent twice. An instance that closes an idle connection
// while the next request is on its way answers nothing, and another one is asked instead.
// It is a route of its own because a retry policy that looks at methods gives the others no
// retries at all.
func read(s routed) *routev3.Route {
	r := route(s)
	r.Match.Headers = []*routev3.HeaderMatcher{header(":method", &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
		SafeRegex: &matcherv3.RegexMatcher{Regex: "GET|HEAD|OPTIONS"},
	}})}
	r.GetRoute().RetryPolicy = retry("connect-failure,reset")
	return r
}

// webSocketKey is read for a WebSocket that is opened in an HTTP/2 connection. Its instance gets
// an HTTP/1.1 upgrade, of which the client has said everything but the key that the answer is
// made from; it looks at neither. An Envoy that makes the key itself never comes here.
func webSocketKey(s routed) *routev3.Route {
	r := read(s)
	r.Match.Headers = []*routev3.HeaderMatcher{
		header("upgrade", &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: "websocket"}, IgnoreCase: true}),
		{Name: "sec-websocket-key", HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: false}},
	}
	r.RequestHeadersToAdd = []*corev3.HeaderValueOption{{
		Header:       &corev3.HeaderValue{Key: "sec-websocket-key", Value: base64.StdEncoding.EncodeToString([]byte("sluice-websocket"))},
		AppendAction: corev3.HeaderValueOption_ADD_IF_ABSENT,
	}}
	return r
}

func header(name string, is *matcherv3.StringMatcher) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: is}}
}

// retry asks another instance of the same colour after what on names.
func retry(on string) *routev3.RetryPolicy {
	return &routev3.RetryPolicy{
		RetryOn:    on,
		NumRetries: wrapperspb.UInt32(2),
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name: "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{
				TypedConfig: packed(&previoushostsv3.PreviousHostsPredicate{}),
			},
		}},
		HostSelectionRetryMaxAttempts: 5,
	}
}
