package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
)

// Changed compares a running configuration with the one that shall replace it.
// changes says in words what would be different; refused names what cannot be
// changed in a running rolloutd, each with the reason. If anything is refused
// the running configuration stays as a whole. What token files hold is not compared:
// tokens are replaced in their files. Pure.
func (c *Config) Changed(next *Config) (changes []string, refused Problems) {
	d := &difference{next: next}
	was, will := c.places(), next.places()
	d.fixed("discovery", was.Discovery, will.Discovery, "instances would be taken for departed ones")
	d.fixed("state", was.State, will.State, "a rollout would lose its memory")
	d.fixed("xds", was.XDS, will.XDS, "the Envoys are connected to it")
	d.fixed("api", was.API, will.API, "it is being served")
	d.fixed("replicas", was.Replicas, will.Replicas, "they are being asked")
	d.fixed("drain", was.Drain, will.Drain, "orders are being sent with it")
	d.fixed("prometheus", was.Prometheus, will.Prometheus, "gates are being asked there")
	d.listeners(c)
	if !slices.Equal(c.Leaving, next.Leaving) {
		d.change("the Envoys that leave are %v", next.Leaving)
	}
	d.services(c)
	return d.changes, d.refused
}

type difference struct {
	next    *Config
	changes []string
	refused Problems
}

func (d *difference) refuse(key, format string, args ...any) {
	d.refused = append(d.refused, d.next.source.problem(key, fmt.Sprintf(format, args...)))
}

func (d *difference) change(format string, args ...any) {
	d.changes = append(d.changes, fmt.Sprintf(format, args...))
}

// fixed: what is read once, when rolloutd starts.
func (d *difference) fixed(key string, old, next any, why string) {
	if !reflect.DeepEqual(old, next) {
		d.refuse(key, "changed, but %s; restart rolloutd for that", why)
	}
}

// listeners stay what they are: Envoy ends a changed listener's connections.
func (d *difference) listeners(old *Config) {
	for _, l := range old.Listeners {
		i := slices.IndexFunc(d.next.Listeners, func(n edge.Listener) bool { return n.Name == l.Name })
		key := fmt.Sprintf("listeners[%d]", i)
		switch {
		case i < 0:
			d.refuse("listeners", "listener %s was removed, which would end its connections; put it back", l.Name)
		case len(l.Differ(d.next.Listeners[i])) > 0:
			d.refuse(key, "listener %s has another %s, which would end its connections; put it back and add another listener, or restart rolloutd: each Envoy keeps the Listener that it has until you drain and restart it, and proxies says which those are",
				l.Name, strings.Join(l.Differ(d.next.Listeners[i]), " and "))
		case old.carries(l.Name) != d.next.carries(l.Name):
			d.refuse(key, "listener %s carried %s and would carry %s, which would end its connections; use another listener",
				l.Name, old.carries(l.Name), d.next.carries(l.Name))
		}
	}
	for _, n := range d.next.Listeners {
		if at := slices.IndexFunc(old.Listeners, func(l edge.Listener) bool { return n.Name == l.Name }); at >= 0 && !reflect.DeepEqual(n.TLS, old.Listeners[at].TLS) {
			d.change("listener %s has other certificates", n.Name)
		}
		if at := slices.IndexFunc(old.Listeners, func(l edge.Listener) bool { return n.Name == l.Name }); at >= 0 && !reflect.DeepEqual(n.HTTPFilters, old.Listeners[at].HTTPFilters) {
			d.change("listener %s has other filters", n.Name)
		}
		if at := slices.IndexFunc(old.Listeners, func(l edge.Listener) bool { return n.Name == l.Name }); at >= 0 && n.Health != old.Listeners[at].Health {
			d.change("listener %s has another health path", n.Name)
		}
		if !slices.ContainsFunc(old.Listeners, func(l edge.Listener) bool { return n.Name == l.Name }) {
			d.change("listener %s is new at %s", n.Name, n.Address)
		}
	}
}

// carries says what kind of listener Envoy has: one for HTTP takes any HTTP
// services, one for TCP is bound to its service.
func (c *Config) carries(listener string) string {
	for _, s := range c.Services {
		if s.Listener == listener && s.Protocol == edge.TCP {
			return fmt.Sprintf("TCP service %s", s.Name)
		}
	}
	return "HTTP services"
}

func (d *difference) services(old *Config) {
	for _, s := range old.Services {
		if d.next.service(s.Name) < 0 {
			d.change("service %s retires: it gets no new connections", s.Name)
		}
	}
	for i, n := range d.next.Services {
		at := old.service(n.Name)
		if at < 0 {
			d.change("service %s is new", n.Name)
			continue
		}
		s := old.Services[at]
		key := fmt.Sprintf("services[%d]", i)
		if s.ConsulService != n.ConsulService {
			d.refuse(key+".consul_service", "changed from %s to %s, and the instances would be taken for departed ones; add a new service instead",
				s.ConsulService, n.ConsulService)
		}
		if s.Protocol != n.Protocol {
			d.refuse(key+".protocol", "changed from %s to %s, which one service cannot; add a new service instead", s.Protocol, n.Protocol)
		}
		if s.Listener != n.Listener || s.Prefix != n.Prefix || !slices.Equal(s.Domains, n.Domains) {
			d.change("service %s has new routes", n.Name)
		}
		if s.HTTP2 != n.HTTP2 {
			d.change("service %s has http2 %t", n.Name, n.HTTP2)
		}
		if !reflect.DeepEqual(s.Affinity, n.Affinity) {
			d.change("service %s has another affinity", n.Name)
		}
		if s.StormGuard != n.StormGuard {
			d.change("service %s has %s", n.Name, guarded(n))
		}
		if !reflect.DeepEqual(s.Policy, n.Policy) {
			d.change("service %s has a new policy, for its next rollout", n.Name)
		}
	}
}

func guarded(s Service) string {
	if s.StormGuard == 0 {
		return "no storm guard"
	}
	return "a storm guard of " + s.StormGuard.String()
}

// service is the index of the service of that name, -1 if there is none.
func (c *Config) service(name discovery.Service) int {
	return slices.IndexFunc(c.Services, func(s Service) bool { return s.Name == name })
}
