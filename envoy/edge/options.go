package edge

import (
	"fmt"
	"net/netip"
	"path"
	"reflect"
	"strings"
)

// maxHops bounds trusted_hops: nobody has more balancers in a row.
const maxHops = 10

// option is a key of a listener that stands in an Envoy's Listener and can be left out: it is
// unless its value is zero.
type option struct {
	key   string
	value func(Listener) any
	off   func(*Listener)
}

var written = []option{
	{"trusted_hops", func(l Listener) any { return l.TrustedHops }, func(l *Listener) { l.TrustedHops = 0 }},
	{"proxy_protocol", func(l Listener) any { return l.ProxyProtocol }, func(l *Listener) { l.ProxyProtocol = "" }},
	{"http1_websockets", func(l Listener) any { return l.HTTP1WebSockets }, func(l *Listener) { l.HTTP1WebSockets = false }},
	{"access_log", func(l Listener) any { return l.AccessLog }, func(l *Listener) { l.AccessLog = AccessLog{} }},
	{"tracing", func(l Listener) any { return l.Tracing }, func(l *Listener) { l.Tracing = nil }},
	{"tls.client_ca", func(l Listener) any { return l.TLS != nil && l.TLS.ClientCA != "" }, func(l *Listener) {
		own := *l.TLS
		own.ClientCA, l.TLS = "", &own
	}},
}

func (o option) set(l Listener) bool { return !reflect.ValueOf(o.value(l)).IsZero() }

// Options are the keys of l that stand in an Envoy's Listener and can be left out, sorted as
// they are read.
func (l Listener) Options() []string {
	var keys []string
	for _, o := range written {
		if o.set(l) {
			keys = append(keys, o.key)
		}
	}
	return keys
}

// Without is l without one of its Options.
func (l Listener) Without(key string) Listener {
	for _, o := range written {
		if o.key == key && o.set(l) {
			o.off(&l)
		}
	}
	return l
}

// Differ are the keys, as Options names them, in which two listeners of one name would have
// different Listeners; address and tls are among them.
func (l Listener) Differ(other Listener) []string {
	var keys []string
	a, b := l.Written(), other.Written()
	if a.Address != b.Address {
		keys = append(keys, "address")
	}
	if (a.TLS == nil) != (b.TLS == nil) {
		keys, a.TLS, b.TLS = append(keys, "tls"), nil, nil
	}
	for _, o := range written {
		if !reflect.DeepEqual(o.value(a), o.value(b)) {
			keys = append(keys, o.key)
		}
	}
	return keys
}

// options looks at what a listener may have beside its address.
func (k *checking) options(key string, l Listener) {
	if l.TLS != nil {
		for i, p := range l.TLS.Pairs() {
			at := key + ".tls"
			if i > 0 {
				at = fmt.Sprintf("%s.more[%d]", at, i-1)
			}
			k.file(onListeners(at+".certificate", l.Name), p.Certificate)
			k.file(onListeners(at+".key", l.Name), p.Key)
		}
		if n := len(l.TLS.More); n >= MaxPairs {
			k.fault(onListeners(key+".tls.more", l.Name), "has %d certificates beside the first; there is room for %d", n, MaxPairs-1)
		}
		if l.TLS.ClientCA != "" {
			k.file(onListeners(key+".tls.client_ca", l.Name), l.TLS.ClientCA)
		}
	}
	k.filters(key, l)
	if l.Health != "" {
		if text := prefix(l.Health); text != "" {
			k.fault(onListeners(key+".health", l.Name), "%s", text)
		} else if strings.HasSuffix(l.Health, "/") {
			k.fault(onListeners(key+".health", l.Name), "ends in /; name one path that no client asks for")
		}
	}
	if l.TrustedHops < 0 || l.TrustedHops > maxHops {
		k.fault(onListeners(key+".trusted_hops", l.Name), "is %d; it is the number of balancers in front of the Envoys, from 0 to %d", l.TrustedHops, maxHops)
	}
	if p := l.ProxyProtocol; p != "" && p != Required && p != Optional {
		k.fault(onListeners(key+".proxy_protocol", l.Name), "%q is neither required nor optional", p)
	}
	if file := l.AccessLog.File; file != "" && (!path.IsAbs(file) || !plain(file)) {
		k.fault(onListeners(key+".access_log.file", l.Name), "%q is relative or not printable; Envoy writes it, so it must be absolute", file)
	}
	if l.AccessLog.GRPC != (netip.AddrPort{}) {
		if l.AccessLog.File != "" {
			k.fault(onListeners(key+".access_log", l.Name), "has file and grpc; choose one")
		}
		k.collector(onListeners(key+".access_log.grpc", l.Name), l.AccessLog.GRPC)
	}
	if l.Tracing != nil {
		k.collector(onListeners(key+".tracing.grpc", l.Name), l.Tracing.GRPC)
	}
}

// maxFilters bounds http_filters.
const maxFilters = 32

// unfit are filters that would take a promise back, by the beginning of their type.
var unfit = []struct{ prefix, why string }{
	{"router.", "ends the chain where it stands, and the service's affinity and every filter after it would be skipped; the router comes after yours by itself"},
	{"filter_chain.", "could hide a router from this check; list its filters here"},
	{"composite.", "could hide a router from this check; list its filters here"},
	{"stateful_session.", "would send clients elsewhere than the hold of sessions on draining instances; use affinity of the service"},
}

// filters looks at what an operator puts before the router. Whether Envoy can read it is
// checked where Envoy's protos are.
func (k *checking) filters(key string, l Listener) {
	const prefix = "type.googleapis.com/envoy.extensions.filters.http."
	if n := len(l.HTTPFilters); n > maxFilters {
		k.fault(onListeners(key+".http_filters", l.Name), "has %d filters; at most %d are told", n, maxFilters)
		return
	}
	for i, f := range l.HTTPFilters {
		at := fmt.Sprintf("%s.http_filters[%d]", key, i)
		if f.Name == "" || len(f.Name) > 200 || !plain(f.Name) {
			k.fault(onListeners(at+".name", l.Name), "%q is no name; give the filter a short one that is printable", f.Name)
		}
		is, _ := f.Config["@type"].(string)
		kind, http := strings.CutPrefix(is, prefix)
		if !http {
			k.fault(onListeners(at+".typed_config", l.Name), "has no \"@type\" of an HTTP filter; write it like %slua.v3.Lua", prefix)
			continue
		}
		for _, u := range unfit {
			if strings.HasPrefix(kind, u.prefix) {
				k.fault(onListeners(at+".typed_config", l.Name), "a filter of the type %s %s", kind, u.why)
			}
		}
	}
}

// collector looks at an address that Envoy sends to.
func (k *checking) collector(f Fault, a netip.AddrPort) {
	if text := address(a); text != "" {
		k.fault(f, "%s", text)
	} else if a.Addr().IsUnspecified() {
		k.fault(f, "%s is no address to connect to; name the machine's", a)
	}
}

// plainTCP refuses what means nothing where nobody reads requests.
func (k *checking) plainTCP(key string, l Listener) {
	const text = "means nothing where TCP is carried; remove it"
	if l.TrustedHops != 0 {
		k.fault(onListeners(key+".trusted_hops", l.Name), text)
	}
	if l.HTTP1WebSockets {
		k.fault(onListeners(key+".http1_websockets", l.Name), text)
	}
	if l.Tracing != nil {
		k.fault(onListeners(key+".tracing", l.Name), text)
	}
	if l.Health != "" {
		k.fault(onListeners(key+".health", l.Name), text)
	}
	if len(l.HTTPFilters) > 0 {
		k.fault(onListeners(key+".http_filters", l.Name), text)
	}
	if l.ProxyProtocol == Optional {
		k.fault(onListeners(key+".proxy_protocol", l.Name), "is optional, and a server that speaks first would wait for a line that does not come; over TCP it is required or not there")
	}
}
