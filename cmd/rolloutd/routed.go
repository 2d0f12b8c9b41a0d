package main

import (
	"maps"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/xds"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// routings remembers what the newest versions of each route said, so that a proxy has
// heard where a service's connections go although another service of its listener, or
// an endpoint, has changed since. The zero value remembers nothing. It belongs to
// publisher.mu.
type routings struct {
	said   map[resource.Ref][]routing      // the newest last
	turned map[discovery.Service]time.Time // when its shares changed last
}

// routing is one version of a route, with the wishes that it was made from.
type routing struct {
	version string
	wishes  desired.Wishes
}

// routingsKept is how many versions of a route are remembered; a proxy that holds an
// older one has to acknowledge a newer first.
const routingsKept = 64

// turn takes over what is published now, instead of was.
func (r *routings) turn(was, now desired.Wishes, set []resource.Resource, version func(resource.Ref) (string, bool)) {
	if r.said == nil {
		r.said, r.turned = map[resource.Ref][]routing{}, map[discovery.Service]time.Time{}
	}
	for name, wish := range now {
		if old, ok := was[name]; !ok || !old.Equal(wish) && !sameShares(old, wish) {
			r.turned[name] = time.Now()
		}
	}
	maps.DeleteFunc(r.turned, func(name discovery.Service, _ time.Time) bool { _, ok := now[name]; return !ok })
	for _, x := range set {
		if x.Type != envoy.RouteType && x.Type != envoy.ExtensionType {
			continue
		}
		said := r.said[x.Ref]
		newest, _ := version(x.Ref)
		if n := len(said); n > 0 && said[n-1].version == newest {
			continue
		}
		said = append(said, routing{newest, now})
		r.said[x.Ref] = said[max(0, len(said)-routingsKept):]
	}
}

// reached reports whether the proxy has acknowledged a route that gives the service's
// colours the shares of the wish. One that was lost had, and they did not change since:
// it may have taken over a route without saying so.
func (r *routings) reached(x xds.Client, s edge.Service, wish desired.Wish) bool {
	if !x.Connected && !r.turned[s.Name].Before(x.Lost) {
		return false
	}
	ref := envoy.Route(s)
	held, ok := x.Acknowledged[ref]
	if !ok {
		return false
	}
	for _, said := range r.said[ref] {
		if was, ok := said.wishes[s.Name]; ok && said.version == held {
			return sameShares(was, wish)
		}
	}
	return false
}

func sameShares(a, b desired.Wish) bool {
	return a.Retired == b.Retired && maps.Equal(a.Weights, b.Weights)
}

// needs is what a proxy has to hold to send the service's connections where they
// should go.
func (p *publisher) needs(name discovery.Service) map[resource.Ref]string {
	s := p.service(name)
	if s == nil {
		return nil
	}
	needs := map[resource.Ref]string{}
	for _, ref := range envoy.Needs(*s) {
		version, published := p.server.Version(ref)
		if !published {
			return nil
		}
		needs[ref] = version
	}
	return needs
}
