package envoy

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// Config is what is configured and does not depend on a rollout.
type Config struct {
	Listeners []Listener
	Services  []Service
}

// Listener is one address at which every proxy listens. A Listener is written
// once: changing or removing one would end its established connections, and
// Safe refuses it.
type Listener struct {
	Name string
	Addr netip.AddrPort
	// TCP: it carries raw connections of one service. It is also taken as TCP
	// while a TCP service is on it; set it to keep the Listener what it is when
	// that service leaves the configuration.
	TCP bool
	// TLS is nil for plain text.
	TLS *TLS
	// AccessLog is the absolute path of a file on the proxy's machine, such as
	// /dev/stdout; empty is none. Streams are logged when they begin and when
	// they end.
	AccessLog string
}

// TLS names PEM files on the proxy's machine by absolute path. Envoy reads them
// itself, and again when something is moved into the certificate's directory;
// what is in them never passes through here.
type TLS struct{ Certificate, Key string }

// Service is what is configured for one service. While it is retired and not
// yet Gone it is best kept in the Config, so that its clusters keep their bytes.
type Service struct {
	Name discovery.Service
	// Listener names the Listener that it is reached at. A TCP Listener has
	// exactly one service.
	Listener string
	// TCP: raw connections; Domains, Prefix and HTTP2 have no meaning then.
	TCP bool
	// Domains are the host names it answers to, without port, in any case, with
	// a wildcard only at one end ("*.example.com", "example.*"); empty means all. The most
	// specific domain wins, whole: a host that some service names is answered
	// by the services that name it and by no others.
	Domains []string
	// Prefix is the path it is reached under: "/chat" is /chat and all below it,
	// and not /chatroom. Empty means "/". The longest one wins.
	Prefix string
	// HTTP2: the instances speak HTTP/2 without TLS as well as HTTP/1.1, and are
	// spoken to as the client speaks: gRPC needs this, and WebSockets still reach
	// them as HTTP/1.1 upgrades. Otherwise they are spoken to in HTTP/1.1 only.
	HTTP2 bool
	// StormGuard is how many new connections a second all proxies together let
	// through, in bursts of at most a tenth of it; 0 is no bound. Over HTTP it
	// counts requests, plain ones too.
	StormGuard units.Rate
}

// hosts are the normalised Domains.
func (s Service) hosts() []string {
	if len(s.Domains) == 0 {
		return []string{"*"}
	}
	var hosts []string
	for _, d := range s.Domains {
		hosts = append(hosts, strings.ToLower(d))
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// prefix is the normalised Prefix: it ends in "/" only as the root.
func (s Service) prefix() string {
	if p := strings.TrimRight(s.Prefix, "/"); p != "" {
		return p
	}
	return "/"
}

// listeners returns them sorted, each TCP when a TCP service is on it.
func (c Config) listeners() []Listener {
	out := slices.Clone(c.Listeners)
	slices.SortStableFunc(out, func(a, b Listener) int { return strings.Compare(a.Name, b.Name) })
	for i, l := range out {
		l.Addr = unmapped(l.Addr)
		l.TCP = l.TCP || slices.ContainsFunc(c.Services, func(s Service) bool { return s.TCP && s.Listener == l.Name })
		out[i] = l
	}
	return out
}

// faults is what is wrong with a Config: the first fault of each listener and
// of each service. A service on a faulty listener is at fault too.
type faults struct {
	listeners map[string]error
	services  map[discovery.Service]error
}

func (c Config) faults() faults {
	f := faults{map[string]error{}, map[discovery.Service]error{}}
	byName, byAddr := map[string]Listener{}, map[netip.AddrPort]string{}
	for _, l := range c.listeners() {
		if _, twice := byName[l.Name]; twice {
			f.listeners[l.Name] = fmt.Errorf("listener %s is there twice; give each its own name", l.Name)
			continue
		}
		byName[l.Name] = l
		if other, taken := byAddr[l.Addr]; taken {
			f.listeners[l.Name] = fmt.Errorf("listeners %s and %s both listen at %s; give one another port", other, l.Name, l.Addr)
			continue
		}
		byAddr[l.Addr] = l.Name
		if err := l.check(); err != nil {
			f.listeners[l.Name] = err
		}
	}
	seen := map[discovery.Service]bool{}
	for _, s := range c.Services {
		err := s.check()
		switch l, known := byName[s.Listener]; {
		case seen[s.Name]:
			err = fmt.Errorf("service %s is there twice; give each its own name", s.Name)
		case err != nil:
		case !known:
			err = fmt.Errorf("service %s: there is no listener %q", s.Name, s.Listener)
		case f.listeners[l.Name] != nil:
			err = fmt.Errorf("service %s: %w", s.Name, f.listeners[l.Name])
		case l.TCP && !s.TCP:
			err = fmt.Errorf("service %s: listener %s carries raw TCP; put HTTP services on another", s.Name, l.Name)
		}
		seen[s.Name] = true
		if err != nil {
			f.services[s.Name] = err
		}
	}
	c.conflicts(f)
	return f
}

// conflicts marks services that would take each other's connections. Neither
// gets a route: to guess would send connections to another service.
func (c Config) conflicts(f faults) {
	type place struct{ listener, host, prefix string }
	owner := map[place]discovery.Service{}
	mark := func(p place, s discovery.Service, text string) {
		other, taken := owner[p]
		if !taken {
			owner[p] = s
			return
		}
		a, b := min(s, other), max(s, other)
		err := fmt.Errorf("services %s and %s %s", a, b, text)
		f.services[a], f.services[b] = err, err
	}
	services := slices.Clone(c.Services)
	slices.SortStableFunc(services, func(a, b Service) int { return strings.Compare(string(a.Name), string(b.Name)) })
	for _, s := range services {
		if f.services[s.Name] != nil {
			continue
		}
		if s.TCP {
			mark(place{listener: s.Listener}, s.Name, fmt.Sprintf("are both on TCP listener %s; give one another listener", s.Listener))
			continue
		}
		for _, h := range s.hosts() {
			mark(place{s.Listener, h, s.prefix()}, s.Name,
				fmt.Sprintf("both answer to %s%s on listener %s; change the domains or the prefix of one", h, s.prefix(), s.Listener))
		}
	}
}

func (l Listener) check() error {
	switch {
	case l.Name == "":
		return fmt.Errorf("a listener has no name")
	case !plain(l.Name) || strings.Contains(l.Name, "/"):
		return fmt.Errorf("listener %q: its name must be printable text without /", l.Name)
	case !l.Addr.IsValid() || l.Addr.Port() == 0 || l.Addr.Addr().Zone() != "":
		return fmt.Errorf("listener %s: its address %s must be an IP address (no zone) and a port above 0", l.Name, l.Addr)
	case l.AccessLog != "" && !absolute(l.AccessLog):
		return fmt.Errorf("listener %s: access log %q must be an absolute path", l.Name, l.AccessLog)
	case l.TLS != nil && (!absolute(l.TLS.Certificate) || !absolute(l.TLS.Key)):
		return fmt.Errorf("listener %s: TLS needs the absolute paths of a certificate and of a key", l.Name)
	}
	if err := validate(listener(l).Message); err != nil {
		return fmt.Errorf("listener %s is not valid: %w", l.Name, err)
	}
	return nil
}

func (s Service) check() error {
	if s.Name == "" {
		return fmt.Errorf("a service has no name")
	}
	if err := s.checkStorm(); err != nil || s.TCP {
		return err
	}
	if s.Prefix != "" && s.Prefix[0] != '/' || strings.ContainsAny(s.Prefix, "?#") || !plain(s.Prefix) {
		return fmt.Errorf("service %s: prefix %q must begin with / and hold neither ? nor #", s.Name, s.Prefix)
	}
	for _, d := range s.Domains {
		if _, _, err := net.SplitHostPort(d); err == nil {
			return fmt.Errorf("service %s: leave the port out of domain %q; any port matches", s.Name, d)
		}
		middle := strings.TrimSuffix(strings.TrimPrefix(d, "*"), "*")
		twice := len(d) > 1 && strings.HasPrefix(d, "*") && strings.HasSuffix(d, "*")
		if d == "" || twice || strings.ContainsAny(middle, "* /") || !plain(d) {
			return fmt.Errorf("service %s: %q is no domain; write chat.example.com, *.example.com, example.* or *", s.Name, d)
		}
	}
	return nil
}

func absolute(file string) bool { return path.IsAbs(file) && plain(file) }

// plain reports whether Envoy can carry the text: UTF-8 without control characters.
func plain(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}
