package config

import (
	"fmt"
	"strings"

	"github.com/sluice-proxy/sluice/discovery"
)

// use is what a listener carries so far.
type use struct {
	services int
	tcp      discovery.Service // empty: none
	routes   map[string]discovery.Service
}

func (r *reading) checkServices(c *Config) {
	if len(c.Services) == 0 {
		r.refuse("services", "is missing; there must be at least one")
	}
	uses := map[string]*use{}
	var listeners []string
	for _, l := range c.Listeners {
		uses[l.Name] = &use{routes: map[string]discovery.Service{}}
		listeners = append(listeners, l.Name)
	}
	names, inConsul := map[string]string{}, map[string]string{}
	homeless := false
	for i, s := range c.Services {
		key := fmt.Sprintf("services[%d]", i)
		r.checkName(key+".name", string(s.Name))
		if r.checkUnique(key+".name", string(s.Name), names) {
			r.checkUnique(key+".consul_service", s.ConsulService, inConsul)
		}
		if strings.ContainsAny(s.ConsulService, "/?# ") {
			r.refuse(key+".consul_service", "%q is no service of Consul's; it holds no /, ?, # or space", s.ConsulService)
		}
		if c.Discovery.Consul == nil && s.ConsulService != string(s.Name) {
			r.refuse(key+".consul_service", "has no effect, because the instances come from a file; remove it")
		}
		if _, err := discovery.ParseColour(string(s.Live)); err != nil {
			r.refuse(key+".live", "%v", err)
		}
		r.checkPolicy(key+".policy", s.Policy)
		u := uses[s.Listener]
		switch {
		case u != nil:
			r.checkRoutes(key, s, u)
		case len(listeners) == 0: // said already
		case s.Listener == "":
			r.refuse(key+".listener", "is missing; name one of %s", strings.Join(listeners, ", "))
		default:
			r.refuse(key+".listener", "there is no listener %q; name one of %s", s.Listener, strings.Join(listeners, ", "))
		}
		homeless = homeless || u == nil
	}
	for i, l := range c.Listeners {
		key := fmt.Sprintf("listeners[%d]", i)
		switch u := uses[l.Name]; {
		case u.services == 0 && !homeless:
			r.refuse(key, "no service uses listener %q; remove it or give it one", l.Name)
		case u.tcp != "" && u.services > 1:
			r.refuse(key, "listener %q carries TCP service %s and others; a TCP service needs a listener for itself", l.Name, u.tcp)
		}
	}
}

// checkRoutes adds the service to what its listener carries.
func (r *reading) checkRoutes(key string, s Service, u *use) {
	u.services++
	switch s.Protocol {
	case TCP:
		u.tcp = s.Name
		for _, name := range []string{"domains", "prefix", "http2"} {
			if r.given(key + "." + name) {
				r.refuse(key+"."+name, "a TCP service has none; remove it")
			}
		}
		return
	case HTTP:
	default:
		r.refuse(key+".protocol", "%q is no protocol; use http or tcp", s.Protocol)
		return
	}
	if !strings.HasPrefix(s.Prefix, "/") || strings.ContainsAny(s.Prefix, "?# \t\r\n\x00") {
		r.refuse(key+".prefix", "%q is no prefix of a path; it starts with / and has no query", s.Prefix)
	}
	for j, d := range s.Domains {
		at := fmt.Sprintf("%s.domains[%d]", key, j)
		if !isDomain(d) {
			r.refuse(at, "%q is no domain; write chat.example.com, *.example.com, chat.* or *", d)
			continue
		}
		route := d + s.Prefix
		if other, taken := u.routes[route]; taken {
			r.refuse(at, "%s of listener %q belongs to service %s already; a listener's services differ in domain or prefix", route, s.Listener, other)
			continue
		}
		u.routes[route] = s.Name
	}
}

// isDomain accepts what Envoy matches a Host header against: a name in lower
// case, perhaps with a port, with at most one * in front or at the end.
func isDomain(d string) bool {
	if d == "*" {
		return true
	}
	name := strings.TrimPrefix(d, "*")
	if name == d {
		name = strings.TrimSuffix(d, "*")
	}
	odd := func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.ContainsRune(".-_:[]", c))
	}
	return name != "" && len(name) <= 255 && !strings.ContainsFunc(name, odd)
}
