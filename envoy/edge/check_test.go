package edge_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
)

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func web(services ...edge.Service) edge.Config {
	return edge.Config{Listeners: []edge.Listener{{Name: "web", Address: addr("127.0.0.1:80")}}, Services: services}
}

func at(name discovery.Service) edge.Service { return edge.Service{Name: name, Listener: "web"} }

func on(prefix string, domains ...string) edge.Config {
	s := at("a")
	s.Prefix, s.Domains = prefix, domains
	return web(s)
}

func listening(listeners ...edge.Listener) edge.Config {
	c := edge.Config{Listeners: listeners}
	for i, l := range listeners {
		c.Services = append(c.Services, edge.Service{Name: discovery.Service(rune('a' + i)), Listener: l.Name})
	}
	return c
}

func two(a, b string) edge.Config {
	return listening(edge.Listener{Name: "web", Address: addr(a)}, edge.Listener{Name: "more", Address: addr(b)})
}

// Each configuration breaks one rule; what follows the key is what is said.
func TestFaults(t *testing.T) {
	tls := func(certificate, key string) edge.Config {
		return listening(edge.Listener{Name: "web", Address: addr("0.0.0.0:443"), TLS: &edge.TLS{Certificate: certificate, Key: key}})
	}
	tcp, raw := edge.Service{Name: "raw", Listener: "web", Protocol: edge.TCP}, edge.Service{Name: "more", Listener: "web", Protocol: edge.TCP}
	prefixed := func(name discovery.Service, prefix string, domains ...string) edge.Service {
		return edge.Service{Name: name, Listener: "web", Prefix: prefix, Domains: domains}
	}
	long := strings.Repeat("a", 64)
	for name, test := range map[string]struct {
		config edge.Config
		want   string
	}{
		"no listeners":        {edge.Config{Services: []edge.Service{at("a")}}, "listeners: is missing; there must be at least one"},
		"no services":         {edge.Config{Listeners: listening(edge.Listener{Name: "web", Address: addr("0.0.0.0:1")}).Listeners}, "services: is missing; there must be at least one\nlisteners[0]: no service uses listener \"web\""},
		"unused listener":     {edge.Config{Listeners: two("0.0.0.0:1", "0.0.0.0:2").Listeners, Services: []edge.Service{at("a")}}, `listeners[1]: no service uses listener "more"; remove it or give it one`},
		"nameless listener":   {listening(edge.Listener{Address: addr("0.0.0.0:1")}), "listeners[0].name: is missing"},
		"odd listener":        {listening(edge.Listener{Name: "Web", Address: addr("0.0.0.0:1")}), `listeners[0].name: "Web" is no name; use at most 63 lower-case letters`},
		"listener with slash": {listening(edge.Listener{Name: "web/storm", Address: addr("0.0.0.0:1")}), `listeners[0].name: "web/storm" is no name`},
		"long name":           {web(at(discovery.Service(long))), `services[0].name: "` + long + `" is no name`},
		"name not in UTF-8":   {listening(edge.Listener{Name: "a\xff", Address: addr("0.0.0.0:1")}), `listeners[0].name: "a\xff" is no name`},
		"one name, listeners": {edge.Config{Listeners: []edge.Listener{{Name: "web", Address: addr("0.0.0.0:1")}, {Name: "web", Address: addr("0.0.0.0:2")}}, Services: []edge.Service{at("a")}}, "listeners[1].name: web stands at listeners[0].name already"},
		"one name, services":  {web(at("a"), prefixed("a", "/b")), "services[1].name: a stands at services[0].name already"},
		"no address":          {listening(edge.Listener{Name: "web"}), "listeners[0].address: is missing; write IP:port"},
		"no port":             {listening(edge.Listener{Name: "web", Address: addr("0.0.0.0:0")}), "listeners[0].address: 0.0.0.0:0 has port 0; clients need a fixed one"},
		"zone":                {listening(edge.Listener{Name: "web", Address: addr("[fe80::1%eth0]:80")}), "listeners[0].address: [fe80::1%eth0]:80 has a zone, which Envoy does not take"},
		"link-local":          {listening(edge.Listener{Name: "web", Address: addr("[fe80::1]:80")}), "listeners[0].address: [fe80::1]:80 is link-local and needs a zone"},
		"multicast":           {listening(edge.Listener{Name: "web", Address: addr("[ff02::1]:80")}), "listeners[0].address: [ff02::1]:80 is a multicast address"},
		"one address":         {two("0.0.0.0:8080", "0.0.0.0:8080"), "listeners[1].address: 0.0.0.0:8080 stands at listeners[0].address already"},
		"IPv6 clothes":        {two("0.0.0.0:8080", "[::ffff:0.0.0.0]:8080"), "listeners[1].address: 0.0.0.0:8080 stands at listeners[0].address already"},
		"no certificate":      {tls("", "/k"), "listeners[0].tls.certificate: is missing; tls needs certificate and key"},
		"relative key":        {tls("/c", "k.pem"), `listeners[0].tls.key: "k.pem" is relative; Envoy reads it, so it must be absolute`},
		"odd certificate":     {tls("/c\n", "/k"), `listeners[0].tls.certificate: "/c\n" is no path that Envoy can be told`},
		"access log":          {listening(edge.Listener{Name: "web", Address: addr("0.0.0.0:1"), AccessLog: edge.AccessLog{File: "x"}}), `listeners[0].access_log.file: "x" is relative`},
		"two logs":            {listening(edge.Listener{Name: "web", Address: addr("0.0.0.0:1"), AccessLog: edge.AccessLog{File: "/x", GRPC: addr("10.0.0.9:1")}}), `listeners[0].access_log: has file and grpc; choose one`},
		"log service":         {listening(edge.Listener{Name: "web", Address: addr("0.0.0.0:1"), AccessLog: edge.AccessLog{GRPC: addr("0.0.0.0:1")}}), `listeners[0].access_log.grpc: 0.0.0.0:1 is no address to connect to`},
		"no collector":        {listening(edge.Listener{Name: "web", Address: addr("0.0.0.0:1"), Tracing: &edge.Tracing{}}), `listeners[0].tracing.grpc: is missing; write IP:port`},
		"many hops":           {listening(edge.Listener{Name: "web", Address: addr("0.0.0.0:1"), TrustedHops: 11}), `listeners[0].trusted_hops: is 11; it is the number of balancers`},
		"odd PROXY":           {listening(edge.Listener{Name: "web", Address: addr("0.0.0.0:1"), ProxyProtocol: "on"}), `listeners[0].proxy_protocol: "on" is neither required nor optional`},
		"optional over TCP":   {edge.Config{Listeners: []edge.Listener{{Name: "web", Address: addr("0.0.0.0:1"), ProxyProtocol: edge.Optional}}, Services: []edge.Service{raw}}, `listeners[0].proxy_protocol: is optional, and a server that speaks first would wait`},
		"hops over TCP":       {edge.Config{Listeners: []edge.Listener{{Name: "web", Address: addr("0.0.0.0:1"), TrustedHops: 1}}, Services: []edge.Service{raw}}, `listeners[0].trusted_hops: means nothing where TCP is carried`},
		"many certificates":   {listening(edge.Listener{Name: "web", Address: addr("0.0.0.0:1"), TLS: &edge.TLS{Certificate: "/c", Key: "/k", More: slices.Repeat([]edge.Pair{{Certificate: "/c", Key: "/k"}}, 16)}}), `listeners[0].tls.more: has 16 certificates beside the first; there is room for 15`},
		"another certificate": {listening(edge.Listener{Name: "web", Address: addr("0.0.0.0:1"), TLS: &edge.TLS{Certificate: "/c", Key: "/k", More: []edge.Pair{{Certificate: "/d"}}}}), `listeners[0].tls.more[0].key: is missing`},
		"odd cookie":          {web(edge.Service{Name: "a", Listener: "web", Affinity: &edge.Affinity{Cookie: "a b"}}), `services[0].affinity.cookie: "a b" is no name of a cookie`},
		"odd session":         {web(edge.Service{Name: "a", Listener: "web", Affinity: &edge.Affinity{Cookie: "a", Session: edge.Session{Query: "&"}}}), `services[0].affinity.session.query: "&" is no parameter`},
		"affinity over TCP":   {web(edge.Service{Name: "raw", Listener: "web", Protocol: edge.TCP, Affinity: &edge.Affinity{Cookie: "a"}}), `services[0].affinity: a TCP service has no cookies`},
		"no such listener":    {web(at("a"), edge.Service{Name: "b", Listener: "raw"}), `services[1].listener: there is no listener "raw"; name one of web`},
		"which listener":      {web(at("a"), edge.Service{Name: "b"}), "services[1].listener: is missing; name one of web"},
		"protocol":            {web(edge.Service{Name: "a", Listener: "web", Protocol: "udp"}), `services[0].protocol: "udp" is no protocol; use http or tcp`},
		"storm guard":         {web(edge.Service{Name: "a", Listener: "web", StormGuard: edge.MaxRate + 1}), "services[0].storm_guard: 10000001/s is no rate; write it like 500/s, between 1/s and 10000000/s"},
		"negative guard":      {web(edge.Service{Name: "raw", Listener: "web", Protocol: edge.TCP, StormGuard: -1}), "services[0].storm_guard: -1/s is no rate"},
		"two TCP":             {web(tcp, raw), `listeners[0]: listener "web" carries TCP service more and others; a TCP service needs a listener for itself`},
		"TCP and HTTP":        {web(at("a"), tcp), `listeners[0]: listener "web" carries TCP service raw and others`},
		"HTTP on a TCP one":   {edge.Config{Listeners: []edge.Listener{{Name: "web", Address: addr("0.0.0.0:1"), Protocol: edge.TCP}}, Services: []edge.Service{at("a")}}, `services[0].listener: listener "web" carries tcp; put http services on another`},
		"TCP on an HTTP one":  {edge.Config{Listeners: []edge.Listener{{Name: "web", Address: addr("0.0.0.0:1"), Protocol: edge.HTTP}}, Services: []edge.Service{tcp}}, `services[0].listener: listener "web" carries http; put tcp services on another`},
		"domain with port":    {on("/", "chat.example.com:8080"), `services[0].domains[0]: leave the port out of "chat.example.com:8080"; any port matches`},
		"wildcard with port":  {on("/", "a", "*:80"), `services[0].domains[1]: leave the port out of "*:80"`},
		"IPv6 with port":      {on("/", "[::1]:80"), `services[0].domains[0]: leave the port out of "[::1]:80"`},
		"bare IPv6":           {on("/", "::1"), `services[0].domains[0]: "::1" is no domain; write chat.example.com, *.example.com, chat.* or *`},
		"star inside":         {on("/", "a.*.example"), `"a.*.example" is no domain`},
		"two stars":           {on("/", "*a*"), `"*a*" is no domain`},
		"star twice":          {on("/", "**"), `"**" is no domain`},
		"empty domain":        {on("/", ""), `"" is no domain`},
		"space in domain":     {on("/", "a b"), `"a b" is no domain`},
		"path in domain":      {on("/", "a/b"), `"a/b" is no domain`},
		"IDN":                 {on("/", "bücher.example"), `"bücher.example" is no domain`},
		"Kelvin":              {on("/", "\u212aey.example"), `is no domain`},
		"long domain":         {on("/", strings.Repeat("a.", 128)+"a"), `is no domain`},
		"domain twice":        {on("/", "a.example", "A.Example"), `services[0].domains[1]: a.example/ of listener "web" belongs to service a already`},
		"one domain":          {web(prefixed("a", "", "A.example"), prefixed("b", "/", "b", "a.Example")), `services[1].domains[1]: a.example/ of listener "web" belongs to service a already; a listener's services differ in domain or prefix`},
		"one prefix":          {web(prefixed("a", "/chat"), prefixed("b", "/chat/")), `services[1].domains[0]: */chat of listener "web" belongs to service a already`},
		"slashes":             {web(prefixed("a", ""), prefixed("b", "//")), `services[1].domains[0]: */ of listener "web" belongs to service a already`},
		"no slash":            {on("chat"), `services[0].prefix: "chat" is no prefix of a path; it starts with / and has no query`},
		"query":               {on("/chat?a"), `"/chat?a" is no prefix of a path`},
		"fragment":            {on("/chat#a"), `"/chat#a" is no prefix of a path`},
		"space in prefix":     {on("/a b"), `"/a b" is no prefix of a path`},
		"dots":                {on("/a/../b"), `"/a/../b" has a segment .., which Envoy takes out of a path before it compares`},
		"dot":                 {on("/a/./"), `"/a/./" has a segment .,`},
		"encoded dots":        {on("/a/%2e%2E/b"), `"/a/%2e%2E/b" encodes "%2e", which Envoy decodes before it compares; write '.'`},
		"encoded letter":      {on("/%41"), `"/%41" encodes "%41", which Envoy decodes before it compares; write 'A'`},
		"half an encoding":    {on("/a%2"), `"/a%2" has a % that encodes nothing; write %25 for a %`},
		"no encoding":         {on("/100%/b"), `"/100%/b" has a % that encodes nothing`},
		"zero byte":           {on("/a%00"), `"/a%00" encodes a zero byte`},
		"not ASCII":           {on("/ü"), `"/ü" has "ü", which clients send encoded; write %C3%BC`},
		"backslash":           {on(`/a\b`), `"/a\\b" has "\\", which clients send encoded; write %5C`},
		"not in UTF-8":        {on("/\xff"), `has "\xff", which clients send encoded; write %FF`},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, f := range test.config.Check() {
				got = append(got, f.Error())
			}
			all := strings.Join(got, "\n")
			if len(got) != 1+strings.Count(test.want, "\n") || !strings.Contains(all, test.want) {
				t.Errorf("got %s\nwant %s", all, test.want)
			}
		})
	}
}

func TestNoFaults(t *testing.T) {
	for name, c := range map[string]edge.Config{
		"a part of all": two("0.0.0.0:8080", "127.0.0.1:8080"), "all of IPv4 and of IPv6": two("0.0.0.0:8080", "[::]:8080"),
		"clothes": two("0.0.0.0:8080", "[::ffff:127.0.0.1]:8080"), "another port": two("0.0.0.0:8080", "0.0.0.0:8081"),
		"ends": on("/", "*.example.com", "example.*", "*foo", "foo*", "*", "example.com", "example.com."), "IPv6": on("/", "[::1]", "10.0.0.1"),
		"encoded": on("/a%2Fb/%c3%bc"), "dots in names": on("/.well-known/a..b/..."), "empty segments": on("//a//b"),
		"sub-delimiters": on("/a!$&'()*+,;=:@[]-_~"), "case": web(edge.Service{Name: "a", Listener: "web", Prefix: "/A"}, edge.Service{Name: "b", Listener: "web", Prefix: "/a"}),
		"names like clusters": web(at("a"), edge.Service{Name: "a-blue", Listener: "web", Prefix: "/b"}),
	} {
		if got := c.Check(); len(got) > 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
}
