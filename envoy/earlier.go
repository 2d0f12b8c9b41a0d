package envoy

import (
	"maps"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// form is what Listeners were before a release changed what every new one has. An Envoy that
// holds such a Listener keeps it for as long as it lives.
type form struct {
	// lacks is what an Envoy with it cannot do that one with the next form can.
	lacks string
	// back takes from a Listener of the next form what this one does not have.
	back func(*listenerv3.Listener)
	// plain: back takes only a Listener without options, so others of this form are not known.
	plain bool
}

// forms are all earlier ones, the oldest first. Whoever changes the bytes of a Listener adds
// the form before the change; testdata/listeners.txt remembers what was published.
var forms = []form{
	{lacks: "closing at once after a goodbye, hosts with a trailing dot, HTTP/1.0, offers of other upgrades, WebSockets over HTTP/2, gRPC-Web, session affinity, the header that names the Envoy, room for more certificates", back: func(l *listenerv3.Listener) {
		manager(l, func(m *hcmv3.HttpConnectionManager) {
			m.HttpFilters = append(m.HttpFilters[:1:1], m.HttpFilters[len(m.HttpFilters)-1])
			m.HttpProtocolOptions, m.Http2ProtocolOptions.AllowConnect = nil, false
			m.DelayedCloseTimeout = durationpb.New(time.Second)
			m.StripTrailingHostDot, m.AddUserAgent = false, nil
		})
		if socket := l.FilterChains[0].TransportSocket; socket != nil {
			m := &tlsv3.DownstreamTlsContext{}
			if socket.GetTypedConfig().UnmarshalTo(m) == nil {
				m.CommonTlsContext.TlsCertificateSdsSecretConfigs = m.CommonTlsContext.TlsCertificateSdsSecretConfigs[:1]
				socket.ConfigType = &corev3.TransportSocket_TypedConfig{TypedConfig: packed(m)}
			}
		}
	}, plain: true},
	{lacks: "filters of one's own", back: func(l *listenerv3.Listener) {
		manager(l, func(m *hcmv3.HttpConnectionManager) {
			m.HttpFilters = slices.DeleteFunc(m.HttpFilters, func(f *hcmv3.HttpFilter) bool { return f.Name == doorName(l.Name) })
		})
	}},
}

// earlier are the versions that an Envoy may hold of l in another form, or without some of the
// options that l has now, each with what it lacks; whether the Envoy has DoorType or not. What
// has the same bytes as a Listener of now lacks nothing and is not among them.
func earlier(l edge.Listener) map[string]string {
	versions := map[string]string{}
	add := func(m *listenerv3.Listener, lacks []string) {
		for _, m := range []*listenerv3.Listener{m, slotted(m)} {
			_, version, err := resource.New(l.Name, m).Encode()
			if _, known := versions[version]; err == nil && !known {
				versions[version] = strings.Join(lacks, ", ")
			}
		}
	}
	all := l.Options()
	for set := range 1 << len(all) {
		without, lacks := l, []string(nil)
		for i, option := range all {
			if set&(1<<i) != 0 {
				without, lacks = without.Without(option), append(lacks, option)
			}
		}
		was := listener(without)
		add(was, lacks)
		for _, f := range slices.Backward(forms) {
			if f.plain && set != 1<<len(all)-1 {
				break // an option is left
			}
			f.back(was)
			lacks = append([]string{f.lacks}, lacks...)
			add(was, lacks)
		}
	}
	maps.DeleteFunc(versions, func(_, lacks string) bool { return lacks == "" })
	return versions
}

// manager changes the connection manager of an HTTP Listener; one for TCP has none.
func manager(l *listenerv3.Listener, change func(*hcmv3.HttpConnectionManager)) {
	for _, f := range l.FilterChains[0].Filters {
		m := &hcmv3.HttpConnectionManager{}
		if f.GetTypedConfig().UnmarshalTo(m) == nil {
			change(m)
			f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: packed(m)}
		}
	}
}
