// Package envoy says what Envoy should hear: it turns the configuration and the
// wishes into xDS resources. Everything here is pure and deterministic; telling
// Envoy is the business of package xds.
//
// Each service has two permanent clusters, one per colour. A rollout changes
// only routes (weights) and endpoints (health), which no established connection
// notices; Listeners are written once.
package envoy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/units"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// Type URLs of the resources that Build returns, in the order in which a proxy
// has to hear of them.
const (
	RuntimeType   = "type.googleapis.com/envoy.service.runtime.v3.Runtime"
	ClusterType   = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	EndpointType  = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	SecretType    = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
	ListenerType  = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RouteType     = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	ExtensionType = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
)

// Types lists them in that order.
var Types = [...]string{RuntimeType, ClusterType, EndpointType, SecretType, ListenerType, RouteType, ExtensionType}

// Build returns everything that the proxies should hear, sorted by Types and
// name: equal worlds give equal resources, whatever order they are given in. Each is
// After the clusters that it sends connections to. Its Owner is the service, empty for
// what services share (Runtime, Listener, Secret, RouteConfiguration, storm guard,
// tcp_proxy).
//
// A service that cannot be built (no wish, weights that do not sum to Whole, an
// endpoint that Envoy would refuse, a conflict with another service) is left
// out whole, and the error says why; the others are as they would be without
// it. Because the proxies have to keep what they know of it, the caller then
// builds again with that service's last good wish in place of the bad one:
// Safe refuses the loss of its clusters until it does.
//
// A wish without a configured service (retired, or about to be) keeps its
// clusters until it is Gone, and gets no new connections.
//
// Of an Unsettled service there is nothing but, over HTTP, a route that answers 503.
// The routes in which it stands are Kept: a proxy that has others from before goes on
// with them.
func Build(c edge.Config, w desired.Wishes) ([]resource.Resource, map[discovery.Service]error) {
	return new(Builder).Build(c, w)
}

// routed is a service that gets new connections, and how.
type routed struct {
	edge.Service
	desired.Wish
}

// build returns what belongs to one service alone, checked. was is what the service was
// made into before, or nil: of it is used what its wish does not change.
func build(alone routed, known bool, was *built) ([]resource.Resource, error) {
	s, w := alone.Service, alone.Wish
	if !known {
		return nil, fmt.Errorf("service %s: nothing is known yet of what should be; wait for its first complete read", s.Name)
	}
	good := was != nil && len(was.own) > 0
	var out, check []resource.Resource
	for i, colour := range discovery.Colours {
		if good && slices.Equal(was.Endpoints[colour], w.Endpoints[colour]) {
			out = append(out, was.own[2*i:2*i+2]...)
			continue
		}
		e, err := endpoints(s.Name, colour, w.Endpoints[colour])
		if err != nil {
			return nil, err
		}
		if s.Affinity != nil && s.Listener != "" {
			// Sessions are held on an instance by a route, and who is held on one that is not
			// there gets 503: the hold ends first.
			e.Behind = []resource.Ref{Route(s)}
		}
		if good {
			out = append(out, was.own[2*i], e)
		} else {
			out = append(out, cluster(s, colour), e)
			check = append(check, out[2*i])
		}
		check = append(check, e)
	}
	if !w.Retired {
		if err := sums(w.Weights); err != nil {
			return nil, fmt.Errorf("service %s: %w", s.Name, err)
		}
		if s.Listener != "" && !(good && !was.Retired && alone.same(was.routed)) {
			check = append(check, storm(edge.Listener{Name: s.Listener, Protocol: s.Protocol}, []routed{alone}))
			if s.Protocol == edge.TCP {
				check = append(check, tcp(edge.Listener{Name: s.Listener}, alone))
			} else {
				check = append(check, routes(edge.Listener{Name: s.Listener}, nil, []routed{alone}))
			}
		}
	}
	for _, r := range check {
		if err := validate(r.Message); err != nil {
			return nil, fmt.Errorf("service %s: %s is not valid: %w", s.Name, r.Ref, err)
		}
	}
	return out, nil
}

// sums checks that the shares are of the two colours and add up to Whole.
func sums(weights map[discovery.Colour]units.Share) error {
	total := units.Share(0)
	for colour, share := range weights {
		if _, err := discovery.ParseColour(string(colour)); err != nil {
			return fmt.Errorf("a weight names no colour: %w", err)
		}
		if share < 0 {
			return fmt.Errorf("the weight of %s is %s; it must not be negative", colour, share)
		}
		total += share
	}
	if total != units.Whole {
		return fmt.Errorf("the weights sum to %s; they must sum to %s", total, units.Whole)
	}
	return nil
}

// Needs names the resources that decide where new connections of the service
// go: the endpoints of both colours, and its routes. Limits and the storm guard
// are not among them: they say how many, not where, and an Envoy whose bootstrap
// is older than they are never asks for them.
func Needs(s edge.Service) []resource.Ref {
	return []resource.Ref{
		{Type: EndpointType, Name: ClusterName(s.Name, discovery.Blue)},
		{Type: EndpointType, Name: ClusterName(s.Name, discovery.Green)},
		Route(s),
	}
}

// Route names the resource that gives the service's colours their shares of new
// connections.
func Route(s edge.Service) resource.Ref {
	if s.Protocol == edge.TCP {
		return resource.Ref{Type: ExtensionType, Name: s.Listener}
	}
	return resource.Ref{Type: RouteType, Name: s.Listener}
}

// ofService is r as a resource of one service alone.
func ofService(s discovery.Service, r resource.Resource) resource.Resource {
	r.Owner = string(s)
	return r
}

// serviceOf is the service whose resource r is; empty for what services share.
func serviceOf(r resource.Resource) discovery.Service { return discovery.Service(r.Owner) }

func compare(a, b resource.Resource) int {
	if a.Type != b.Type {
		return slices.Index(Types[:], a.Type) - slices.Index(Types[:], b.Type)
	}
	return strings.Compare(a.Name, b.Name)
}
