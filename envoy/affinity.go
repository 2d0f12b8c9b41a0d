package envoy

import (
	"encoding/base64"
	"net/netip"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	sessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	cookiev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/cookie/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/type/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/discovery"
)

// refusedHeader is in an instance's answer to what it did not take on: the request may be sent
// to another one.
const refusedHeader = "x-sluice-refused"

// holding and letting are the weights of a draining instance's colour and of the other one. A
// retry chooses anew among the clusters that have weight; by chance it is one in four thousand
// million.
const holding, letting = 4_000_000_000, 1

// retried is how much of a body is kept, so that a refused request can be sent again.
const retried = 1 << 20

// sticky has a route send a client to the instance that its cookie names, if that is of the
// chosen colour. The cookie has no end of its own: up to Envoy 1.36 one would mean something
// else on each machine.
func sticky(s routed, r *routev3.Route) {
	if s.Affinity == nil {
		return
	}
	r.TypedPerFilterConfig = map[string]*anypb.Any{sessionFilter: packed(&sessionv3.StatefulSessionPerRoute{
		Override: &sessionv3.StatefulSessionPerRoute_StatefulSession{StatefulSession: &sessionv3.StatefulSession{
			SessionState: &corev3.TypedExtensionConfig{
				Name: "envoy.http.stateful_session.cookie",
				TypedConfig: packed(&cookiev3.CookieBasedSessionState{
					Cookie: &httpv3.Cookie{Name: s.Affinity.Cookie, Path: s.Path()},
				}),
			},
		}},
	})}
}

// holds lead the requests of open sessions to the instances that drain, one route for each: the
// weights lead all others to the target. Who refuses one, or is no more, has it sent to the
// other colour (by an Envoy from 1.39 on).
func holds(s routed) []*routev3.Route {
	if s.Affinity == nil || s.Affinity.Session.Query == "" {
		return nil
	}
	var out []*routev3.Route
	for _, h := range s.held() {
		r := route(s)
		r.Match.Headers = []*routev3.HeaderMatcher{header("cookie", &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Contains{Contains: stamp(h.addr)},
		})}
		r.Match.QueryParameters = []*routev3.QueryParameterMatcher{{
			Name: s.Affinity.Session.Query, QueryParameterMatchSpecifier: &routev3.QueryParameterMatcher_PresentMatch{PresentMatch: true},
		}}
		r.RequestBodyBufferLimit = wrapperspb.UInt64(retried)
		to := r.GetRoute()
		for _, w := range to.GetWeightedClusters().Clusters {
			w.Weight = wrapperspb.UInt32(letting)
			if w.Name == ClusterName(s.Name, h.colour) {
				w.Weight = wrapperspb.UInt32(holding)
			}
		}
		to.RetryPolicy = retry("retriable-headers,connect-failure")
		to.RetryPolicy.RefreshClusterOnRetry = true
		to.RetryPolicy.RetriableHeaders = []*routev3.HeaderMatcher{{Name: refusedHeader, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}}}
		out = append(out, r)
	}
	return out
}

// departing is an instance that drains.
type departing struct {
	colour discovery.Colour
	addr   netip.AddrPort
}

// held lists the service's instances that drain and whose sessions stay with them.
func (r routed) held() []departing {
	var out []departing
	if r.Affinity == nil {
		return nil
	}
	for _, c := range discovery.Colours {
		serves := map[netip.AddrPort]bool{}
		for _, e := range r.Endpoints[c] {
			serves[unmapped(e.Addr)] = serves[unmapped(e.Addr)] || !e.Draining
		}
		for addr, serves := range serves {
			if !serves {
				out = append(out, departing{c, addr})
			}
		}
	}
	slices.SortFunc(out, func(a, b departing) int {
		if a.colour != b.colour {
			return slices.Index(discovery.Colours[:], a.colour) - slices.Index(discovery.Colours[:], b.colour)
		}
		return a.addr.Compare(b.addr)
	})
	return out
}

// stamp is what a cookie holds that names an instance: a message whose first field is the
// address, in base64. Clients send it with or without quotes and padding.
func stamp(a netip.AddrPort) string {
	at := a.String()
	return base64.RawStdEncoding.EncodeToString(append([]byte{0x0a, byte(len(at))}, at...))
}

// honoured are the states of an instance in which its cookie counts.
func honoured() *corev3.HealthStatusSet {
	return &corev3.HealthStatusSet{Statuses: []corev3.HealthStatus{
		corev3.HealthStatus_HEALTHY, corev3.HealthStatus_UNKNOWN, corev3.HealthStatus_DEGRADED, corev3.HealthStatus_DRAINING,
	}}
}
