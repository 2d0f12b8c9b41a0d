package edge

import (
	"cmp"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sluice-proxy/sluice/discovery"
)

// Fault is one rule that a Config breaks. It is the error of what cannot be
// built because of it.
type Fault struct {
	// Key is where it stands, such as services[0].domains[1].
	Key string
	// Text is one sentence: what is wrong and what to do.
	Text string
	// Listeners are those that cannot be built because of it.
	Listeners []string
	// Services are those that cannot be reached because of it. Of two that want
	// the same it is both: to guess would send connections to another service.
	Services []discovery.Service
}

func (f Fault) Error() string { return f.Key + ": " + f.Text }

// Check returns every rule that c breaks, in the order of c. Without a fault
// everything in c can be built, and Envoy takes it.
func (c Config) Check() []Fault { return c.check(none) }

// absent are the indices of what is not looked at: it is as if it were not there,
// and the keys of the others stay what they are.
type absent struct{ listeners, services map[int]bool }

var none absent

func (c Config) check(without absent) []Fault {
	k := &checking{Config: c, absent: without, used: map[string]*use{}}
	k.checkListeners()
	k.checkServices()
	k.checkUses()
	for i, node := range c.Leaving {
		if !isNode(node) {
			k.fault(Fault{Key: fmt.Sprintf("leaving[%d]", i)}, "%q is no node id of an Envoy", node)
		}
	}
	return k.faults
}

// checking is one pass over a Config.
type checking struct {
	Config
	absent
	used   map[string]*use // by listener
	names  []string        // of the listeners
	faults []Fault
}

// use is what a listener carries.
type use struct {
	protocol Protocol // empty: what the services speak
	services []discovery.Service
	tcp      discovery.Service // empty: none
	routes   map[string]discovery.Service
}

// fault records f. A fault of listeners is one of the services on them.
func (k *checking) fault(f Fault, format string, args ...any) {
	f.Text = fmt.Sprintf(format, args...)
	for i, s := range k.Services {
		if !k.services[i] && slices.Contains(f.Listeners, s.Listener) {
			f.Services = append(f.Services, s.Name)
		}
	}
	k.faults = append(k.faults, f)
}

func onListeners(key string, listeners ...string) Fault {
	return Fault{Key: key, Listeners: listeners}
}

func onServices(key string, services ...discovery.Service) Fault {
	return Fault{Key: key, Services: services}
}

// stood is where a value stood first, and whose it is.
type stood struct{ key, owner string }

func (k *checking) checkListeners() {
	names, addresses := map[string]stood{}, map[netip.AddrPort]stood{}
	there := false
	for i, l := range k.Listeners {
		if k.listeners[i] {
			continue
		}
		there = true
		key := fmt.Sprintf("listeners[%d]", i)
		k.name(onListeners(key+".name", l.Name), l.Name)
		if first, twice := names[l.Name]; twice && l.Name != "" {
			k.fault(onListeners(key+".name", l.Name), "%s stands at %s already", l.Name, first.key)
		} else {
			names[l.Name] = stood{key: key + ".name"}
			k.names = append(k.names, l.Name)
			k.used[l.Name] = &use{protocol: l.Protocol, routes: map[string]discovery.Service{}}
		}
		at := key + ".address"
		if text := address(l.Address); text != "" {
			k.fault(onListeners(at, l.Name), "%s", text)
		} else if first, taken := addresses[l.Bind()]; taken {
			k.fault(onListeners(at, first.owner, l.Name), "%s stands at %s already", l.Bind(), first.key)
		} else {
			addresses[l.Bind()] = stood{at, l.Name}
		}
		k.options(key, l)
	}
	if !there {
		f := Fault{Key: "listeners"}
		for _, s := range k.Services {
			f.Services = append(f.Services, s.Name)
		}
		k.fault(f, "is missing; there must be at least one")
	}
}

// name allows what can stand in names of Envoy's clusters and statistics, in
// Consul's keys and in file names.
func (k *checking) name(f Fault, name string) {
	inner := func(c rune) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' }
	odd := strings.ContainsFunc(name, func(c rune) bool { return !inner(c) })
	switch {
	case name == "":
		k.fault(f, "is missing")
	case odd || strings.Trim(name, "-") != name || len(name) > 63:
		k.fault(f, "%q is no name; use at most 63 lower-case letters, digits and inner dashes", name)
	}
}

// address says why Envoy cannot bind an address; empty when it can. One that is
// part of another is no fault: the kernel gives a connection to the closest one.
func address(a netip.AddrPort) string {
	ip := a.Addr()
	switch {
	case !a.IsValid():
		return "is missing; write IP:port, such as 0.0.0.0:8080"
	case a.Port() == 0:
		return fmt.Sprintf("%s has port 0; clients need a fixed one", a)
	case ip.Zone() != "":
		return fmt.Sprintf("%s has a zone, which Envoy does not take", a)
	case ip.Is6() && ip.IsLinkLocalUnicast():
		return fmt.Sprintf("%s is link-local and needs a zone, which Envoy does not take; use [::] or a routable address", a)
	case ip.Unmap().IsMulticast():
		return fmt.Sprintf("%s is a multicast address, to which nobody can connect; use 0.0.0.0, [::] or an address of the machine", a)
	}
	return ""
}

// file looks at a path that Envoy opens, perhaps on another machine.
func (k *checking) file(f Fault, name string) {
	switch {
	case name == "":
		k.fault(f, "is missing; tls needs certificate and key")
	case !path.IsAbs(name):
		k.fault(f, "%q is relative; Envoy reads it, so it must be absolute", name)
	case !plain(name):
		k.fault(f, "%q is no path that Envoy can be told; it holds printable characters only", name)
	}
}

// plain reports whether Envoy can carry the text: UTF-8 without control characters.
func plain(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

func (k *checking) checkServices() {
	names := map[discovery.Service]string{}
	for i, s := range k.Services {
		if k.services[i] {
			continue
		}
		key := fmt.Sprintf("services[%d]", i)
		k.name(onServices(key+".name", s.Name), string(s.Name))
		if first, twice := names[s.Name]; twice && s.Name != "" {
			k.fault(onServices(key+".name", s.Name), "%s stands at %s already", s.Name, first)
		} else {
			names[s.Name] = key + ".name"
		}
		if s.StormGuard < 0 || s.StormGuard > MaxRate {
			k.fault(onServices(key+".storm_guard", s.Name), "%s is no rate; write it like 500/s, between 1/s and %s", s.StormGuard, MaxRate)
		}
		u := k.used[s.Listener]
		switch {
		case u != nil:
			u.services = append(u.services, s.Name)
			k.service(key, s, u)
		case len(k.names) == 0: // said already
		case s.Listener == "":
			k.fault(onServices(key+".listener", s.Name), "is missing; name one of %s", strings.Join(k.names, ", "))
		default:
			k.fault(onServices(key+".listener", s.Name), "there is no listener %q; name one of %s", s.Listener, strings.Join(k.names, ", "))
		}
	}
	if len(names) == 0 {
		k.fault(Fault{Key: "services"}, "is missing; there must be at least one")
	}
}

// service adds a service to what its listener carries.
func (k *checking) service(key string, s Service, u *use) {
	speaks := cmp.Or(s.Protocol, HTTP)
	if speaks != HTTP && speaks != TCP {
		k.fault(onServices(key+".protocol", s.Name), "%q is no protocol; use http or tcp", s.Protocol)
		return
	}
	if u.protocol != "" && u.protocol != speaks {
		k.fault(onServices(key+".listener", s.Name), "listener %q carries %s; put %s services on another", s.Listener, u.protocol, speaks)
	}
	if speaks == TCP {
		u.tcp = s.Name
		if s.Affinity != nil {
			k.fault(onServices(key+".affinity", s.Name), "a TCP service has no cookies; remove it")
		}
		return
	}
	if a := s.Affinity; a != nil {
		if !token(a.Cookie) {
			k.fault(onServices(key+".affinity.cookie", s.Name), "%q is no name of a cookie; use letters, digits, - and _", a.Cookie)
		}
		if a.Session.Query != "" && !token(a.Session.Query) {
			k.fault(onServices(key+".affinity.session.query", s.Name), "%q is no parameter of a URL; use letters, digits, - and _", a.Session.Query)
		}
	}
	if text := prefix(s.Prefix); text != "" {
		k.fault(onServices(key+".prefix", s.Name), "%s", text)
	}
	domains := s.Domains
	if len(domains) == 0 {
		domains = []string{"*"}
	}
	spelled := map[string]string{}
	for j, d := range domains {
		h, at := Domain(d), fmt.Sprintf("%s.domains[%d]", key, j)
		if text := domain(h); text != "" {
			k.fault(onServices(at, s.Name), "%s", text)
			continue
		}
		route := h + s.Path()
		other, taken := u.routes[route]
		if taken && other == s.Name && spelled[h] != lower(d) {
			continue // a.example and a.example. are one, and meant to be
		}
		if spelled[h] = lower(d); taken {
			k.fault(onServices(at, other, s.Name), "%s of listener %q belongs to service %s already; a listener's services differ in domain or prefix", route, s.Listener, other)
			continue
		}
		u.routes[route] = s.Name
	}
}

// checkUses looks at what the listeners carry, all services taken together.
func (k *checking) checkUses() {
	homeless := false
	for i, s := range k.Services {
		homeless = homeless || !k.services[i] && k.used[s.Listener] == nil
	}
	for i, l := range k.Listeners {
		if k.listeners[i] {
			continue
		}
		key := fmt.Sprintf("listeners[%d]", i)
		if k.Carries(l) == TCP {
			k.plainTCP(key, l)
		}
		switch u := k.used[l.Name]; {
		case len(u.services) == 0 && !homeless:
			k.fault(Fault{Key: key}, "no service uses listener %q; remove it or give it one", l.Name)
		case u.tcp != "" && len(u.services) > 1:
			k.fault(onListeners(key, l.Name), "listener %q carries TCP service %s and others; a TCP service needs a listener for itself", l.Name, u.tcp)
		}
	}
}

// isNode reports whether an Envoy can be called so.
func isNode(id string) bool { return id != "" && len(id) <= 1000 && plain(id) }

// token reports whether s is a short name that needs no quotes in a header or URL.
func token(s string) bool {
	odd := func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_')
	}
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, odd)
}
