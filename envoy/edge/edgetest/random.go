// Package edgetest makes up configurations near the border of the rules.
package edgetest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// What a value is made of: first what is right, then what is on one side of the
// border or the other. "" stands for what is left out.
var (
	names     = words{{"web", "raw", "chat", "feed", "a", "a-blue", "a-blue-green", "sluice", "0"}, {"", "A", "-a", "a.b", "a_b", "ü", "web/storm", strings.Repeat("n", 63), strings.Repeat("n", 64)}}
	addresses = words{
		{"0.0.0.0:8080", "0.0.0.0:8081", "0.0.0.0:8082", "0.0.0.0:8083", "127.0.0.1:8080", "[::]:8080", "[::1]:8080", "10.0.0.1:65535"},
		{"", "[::ffff:0.0.0.0]:8080", "[::ffff:127.0.0.1]:8080", "0.0.0.0:0", "[fe80::1%eth0]:80", "[fe80::1]:80", "[::%1]:80", "224.0.0.1:80", "[ff02::1]:80"}}
	files   = words{{"/etc/tls/tls.crt", "/etc/tls/tls.key", "/a b"}, {"", "tls.crt", "./tls.crt", "/", "/\x01", "/ü"}}
	domains = words{
		{"chat.example.com", "feed.example.com", "*", "*.example.com", "example.*", "a", "[::1]", "10.0.0.1"},
		{"", "CHAT.example.com", "chat.example.com.", "chat.example.com:80", "*:80", "[::1]:80", "::1", "[::1%eth0]", "[a]", "*foo", "foo*", "**", "*a*", "a.*.b", "a b", "a/b", "a\x00",
			"xn--bcher-kva.example", "bücher.example", "\u212a.example", "a_b", "-", ".", "a..b", strings.Repeat("d", 255), strings.Repeat("d", 256)}}
	prefixes = words{
		{"", "/", "/chat", "/feed", "/a/b", "/a", "/b", "/c", "/d"},
		{"//", "/chat/", "/chat//", "//chat", "/Chat", "chat", "/chat?", "/chat?a", "/chat#", "/a b", "/a\tb", "/a\x00", "/.", "/..", "/a/../b", "/a/./", "/...", "/.a", "/a.",
			"/%2e%2e", "/%2F", "/%2f/", "/%41", "/%7E", "/%", "/%a", "/%zz", "/%00", "/%c3%bc", "/ü", "/\xff", `/\`, "/^", "/|", "/{a}", "/~", "/a;b=c", "/:@", "/[a]", "/!$&'()*+,", "/" + strings.Repeat("p", 9000)}}
	protocols = words{{"http", "http", "http", "tcp"}, {"", "udp", "HTTP"}}
)

// words are right ones and ones near the border.
type words [2][]string

func (w words) pick(r *rand.Rand, near int) string {
	from := w[0]
	if r.IntN(near) == 0 {
		from = w[1]
	}
	return from[r.IntN(len(from))]
}

// Random makes up a configuration of at most so many listeners and services. One
// value in near is from near the border of the rules.
func Random(r *rand.Rand, listeners, services, near int) edge.Config {
	var c edge.Config
	for range 1 + r.IntN(listeners) {
		l := edge.Listener{Name: names.pick(r, near)}
		l.Address, _ = netip.ParseAddrPort(addresses.pick(r, near))
		if r.IntN(4) == 0 {
			l.TLS = &edge.TLS{Certificate: files.pick(r, near), Key: files.pick(r, near)}
			for range r.IntN(3) {
				l.TLS.More = append(l.TLS.More, edge.Pair{Certificate: files.pick(r, near), Key: files.pick(r, near)})
			}
		}
		if r.IntN(3*near) == 0 {
			l.TrustedHops = r.IntN(14) - 1
		}
		if r.IntN(2*near) == 0 {
			l.ProxyProtocol = []edge.ProxyProtocol{edge.Required, edge.Optional, "on"}[r.IntN(3)]
		}
		if r.IntN(2*near) == 0 {
			l.AccessLog.File = []string{"/dev/null", "/dev/stdout", "access.log", "/\x01"}[r.IntN(4)]
		}
		c.Listeners = append(c.Listeners, l)
	}
	for range 1 + r.IntN(services) {
		s := edge.Service{
			Name: discovery.Service(names.pick(r, near)), Listener: c.Listeners[r.IntN(len(c.Listeners))].Name,
			Protocol: edge.Protocol(protocols.pick(r, near)), HTTP2: r.IntN(4) == 0,
		}
		if r.IntN(2) == 0 {
			s.Name = discovery.Service(fmt.Sprintf("s%d", len(c.Services)))
		}
		if r.IntN(near) == 0 {
			s.Listener = names.pick(r, near)
		}
		if s.Protocol != edge.TCP {
			for range r.IntN(3) {
				s.Domains = append(s.Domains, domains.pick(r, near))
			}
			s.Prefix = prefixes.pick(r, near)
		} else {
			s.HTTP2 = false
		}
		if r.IntN(3) == 0 {
			s.StormGuard = units.Rate(1 + r.IntN(1<<r.IntN(23)))
		}
		if r.IntN(5*near) == 0 {
			s.StormGuard = []units.Rate{-1, edge.MaxRate, edge.MaxRate + 1}[r.IntN(3)]
		}
		c.Services = append(c.Services, s)
	}
	return c
}
