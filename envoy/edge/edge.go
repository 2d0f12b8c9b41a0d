// Package edge has the words for what clients meet, the listeners and the
// services behind them, and the rules that these keep: one rule book for the reader
// of a configuration and for the builder of resources.
package edge

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// Config is what every proxy serves, whatever a rollout does. Its values may be
// wrong: Check says so.
type Config struct {
	Listeners []Listener
	Services  []Service
	// Leaving are the node ids of the Envoys whose Health answers 503.
	Leaving []string
}

// Listener is one address at which every Envoy accepts connections. It is written
// once: changing or removing one would end its established connections.
type Listener struct {
	// Name is unique: lower-case letters, digits and dashes, at most 63.
	Name string `yaml:"name"`
	// Address is IP:port as Envoy binds it, such as 0.0.0.0:8080. Unique; an IPv4
	// address in IPv6 clothes is the IPv4 address.
	Address netip.AddrPort `yaml:"address"`
	// TLS ends TLS at this listener. Default: plain text.
	TLS *TLS `yaml:"tls"`
	// TrustedHops is how many balancers in front of the Envoys are believed: the client is the
	// entry of X-Forwarded-For that the first of them added, and X-Forwarded-Proto is kept. 0 to
	// 10; default 0: the peer is the client. Only for http.
	TrustedHops int `yaml:"trusted_hops"`
	// ProxyProtocol is whether connections begin with the PROXY protocol's line, which says who
	// the client is. Default: none does.
	ProxyProtocol ProxyProtocol `yaml:"proxy_protocol"`
	// HTTP1WebSockets: WebSockets are opened over HTTP/1.1 only. Default: also in an HTTP/2
	// connection (RFC 8441), as browsers do that have one. An instance that is spoken to in
	// HTTP/2 (see Service.HTTP2) would be asked for a WebSocket in HTTP/2 then, which few
	// servers can.
	HTTP1WebSockets bool `yaml:"http1_websockets"`
	// AccessLog is where streams are logged, when they begin and when they end. Default: nowhere.
	AccessLog AccessLog `yaml:"access_log"`
	// Tracing is where spans go. Default: nowhere. Only for http.
	Tracing *Tracing `yaml:"tracing"`
	// Health is a path that each Envoy answers itself, for whatever host: 200, or 503 when it is
	// Leaving, so that a balancer in front sends it nobody new. Default: none. Only for http.
	Health string `yaml:"health"`
	// HTTPFilters are filters of one's own, in their order, between the storm guard and the
	// routes; they can change at any time. What they name, such as a cluster, is in the Envoys'
	// bootstrap. Default: none. Only for http.
	HTTPFilters []Filter `yaml:"http_filters"`
	// Protocol is what it carries: HTTP of any services, or TCP of one. Empty: what
	// its services speak. Set it to keep the Listener what it is when they leave
	// the configuration.
	Protocol Protocol `yaml:"-"`
}

// Filter is an HTTP filter in Envoy's own words.
type Filter struct {
	// Name is what routes would call it.
	Name string `yaml:"name"`
	// Config is its configuration as in Envoy's YAML; "@type" says what it is.
	Config map[string]any `yaml:"typed_config"`
}

// TLS names certificates by their files on the Envoys' machines. Paths are absolute. What is
// in the files never passes through here, and none of it but whether there is a ClientCA
// stands in the Listener.
type TLS struct {
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
	// More are certificates for other names; a client gets the one for the name that it
	// asks for (SNI), else the first. At most MaxPairs-1.
	More []Pair `yaml:"more"`
	// ClientCA is a file of the authorities one of which must have signed each client's
	// certificate; instances are told who it is in x-forwarded-client-cert. Default: clients
	// need none.
	ClientCA string `yaml:"client_ca"`
}

// Pair is one certificate and its key.
type Pair struct {
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
}

// MaxPairs is how many certificates a Listener has room for from its first day.
const MaxPairs = 16

// Pairs are the certificates, the first one first.
func (t TLS) Pairs() []Pair { return append([]Pair{{t.Certificate, t.Key}}, t.More...) }

// ProxyProtocol says whether connections begin with the PROXY protocol's line.
type ProxyProtocol string

const (
	// Required: a connection without the line is closed.
	Required ProxyProtocol = "required"
	// Optional: a connection without the line is its peer's. Any client may claim an address
	// then. Only for http: over TCP a server that speaks first would wait for a line.
	Optional ProxyProtocol = "optional"
)

// AccessLog has at most one of its two fields set.
type AccessLog struct {
	// File is an absolute path on the Envoy's machine, such as /dev/stdout: one JSON object in
	// a line.
	File string `yaml:"file"`
	// GRPC is the IP:port of an access log service of Envoy's.
	GRPC netip.AddrPort `yaml:"grpc"`
}

// Tracing is an OpenTelemetry collector.
type Tracing struct {
	// GRPC is the IP:port at which it takes OTLP over gRPC without TLS.
	GRPC netip.AddrPort `yaml:"grpc"`
	// Sample is the share of requests that are traced, beside those whose client is traced
	// already. Default 0.
	Sample units.Share `yaml:"sample"`
}

// Written is l as far as it stands in an Envoy's Listener; what else there is of it can change.
func (l Listener) Written() Listener {
	l.Address, l.Protocol, l.HTTPFilters, l.Health = l.Bind(), "", nil, ""
	if l.TLS != nil {
		l.TLS = &TLS{ClientCA: l.TLS.ClientCA}
		if l.TLS.ClientCA != "" {
			l.TLS.ClientCA = "/"
		}
	}
	return l
}

// Protocol is what a service speaks, as far as Envoy has to know.
type Protocol string

const (
	// HTTP: WebSocket, gRPC, SSE and plain requests. So is the empty Protocol.
	HTTP Protocol = "http"
	// TCP: raw connections. A TCP service has its listener for itself.
	TCP Protocol = "tcp"
)

// MaxRate bounds a storm guard: no machine takes more.
const MaxRate units.Rate = 10_000_000

// Service is one application as its clients reach it.
type Service struct {
	// Name is unique: lower-case letters, digits and dashes, at most 63.
	Name discovery.Service `yaml:"name"`
	// Listener names the Listener that it is reached at.
	Listener string `yaml:"listener"`
	// Protocol is http (the default) or tcp. Domains, Prefix and HTTP2 have no
	// meaning for tcp.
	Protocol Protocol `yaml:"protocol"`
	// Domains are the Host headers that belong to the service, without port and in
	// any case: a name, *.name, name.*, or * for every other. Default *. The most
	// specific domain wins, whole: a host that some service names is answered by
	// the services that name it and by no others.
	Domains []string `yaml:"domains"`
	// Prefix is the path it is reached under: "/chat" is /chat and all below it,
	// and not /chatroom. Default /. The longest one wins. A listener's services
	// differ in domain or prefix.
	Prefix string `yaml:"prefix"`
	// HTTP2: the instances speak HTTP/2 without TLS as well as HTTP/1.1, and are
	// spoken to as the client speaks: gRPC needs this, and WebSockets still reach
	// them as HTTP/1.1 upgrades. Default: they are spoken to in HTTP/1.1 only.
	HTTP2 bool `yaml:"http2"`
	// Affinity sends a client's requests to the instance that answered its first one. Default:
	// each request to any.
	Affinity *Affinity `yaml:"affinity"`
	// StormGuard is how many new connections a second all Envoys together let
	// through, in bursts of at most a tenth of it; over HTTP it counts requests,
	// plain ones too. Default: no bound.
	StormGuard units.Rate `yaml:"storm_guard"`
}

// Affinity is by a cookie that Envoys set and read; it names the instance's address.
type Affinity struct {
	// Cookie is its name.
	Cookie string `yaml:"cookie"`
	// Session is how the application marks the requests of an open session. They stay with an
	// instance that drains, until it lets the session go; all others go where new connections
	// go. Default: none is marked, and polling sessions end at the switch.
	Session Session `yaml:"session"`
}

// Session is where a request carries the application's name of its session.
type Session struct {
	// Query is a parameter of the URL: sid of Socket.IO, id of SignalR.
	Query string `yaml:"query"`
}

// Domain is a domain as Envoy compares it: in lower case, of which only the
// letters of ASCII have one, and without the dot that ends a name which is complete.
func Domain(d string) string {
	d = lower(d)
	if name := strings.TrimSuffix(d, "."); strings.Trim(name, "*.") != "" {
		return name
	}
	return d
}

func lower(d string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'A' && c <= 'Z' {
			return c + 'a' - 'A'
		}
		return c
	}, d)
}

// Hosts are the Domains as Envoy compares them, sorted, each once.
func (s Service) Hosts() []string {
	if len(s.Domains) == 0 {
		return []string{"*"}
	}
	var hosts []string
	for _, d := range s.Domains {
		hosts = append(hosts, Domain(d))
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// Path is the Prefix as Envoy compares it: it ends in "/" only as the root.
func (s Service) Path() string {
	if p := strings.TrimRight(s.Prefix, "/"); p != "" {
		return p
	}
	return "/"
}

// Bind is the Address as Envoy binds it: IPv4 in IPv6 clothes is IPv4.
func (l Listener) Bind() netip.AddrPort {
	return netip.AddrPortFrom(l.Address.Addr().Unmap(), l.Address.Port())
}

// Carries is the protocol of a listener of c: HTTP unless a TCP service is on it.
func (c Config) Carries(l Listener) Protocol {
	tcp := func(s Service) bool { return s.Protocol == TCP && s.Listener == l.Name }
	if l.Protocol == TCP || l.Protocol == "" && slices.ContainsFunc(c.Services, tcp) {
		return TCP
	}
	return HTTP
}
