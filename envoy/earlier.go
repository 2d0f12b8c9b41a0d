package envoy

import (
	"strings"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
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
}

// forms are all earlier ones, the oldest first. Whoever changes the bytes of a Listener adds
// the form before the change; testdata/listeners.txt remembers what was published.
var forms = []form{
	{"closing at once after a goodbye, hosts with a trailing dot, HTTP/1.0, offers of other upgrades, WebSockets over HTTP/2, gRPC-Web, session affinity, the header that names the Envoy", func(l *listenerv3.Listener) {
		manager(l, func(m *hcmv3.HttpConnectionManager) {
			m.HttpFilters = append(m.HttpFilters[:1], m.HttpFilters[len(m.HttpFilters)-1])
			m.HttpProtocolOptions, m.Http2ProtocolOptions.AllowConnect = nil, false
			m.DelayedCloseTimeout = durationpb.New(time.Second)
			m.StripTrailingHostDot, m.AddUserAgent = false, nil
		})
	}},
}

// earlier are the versions of l in its earlier forms, each with what an Envoy that holds it lacks.
// A form that had the same bytes lacks nothing and is none.
func earlier(l edge.Listener, now resource.Resource) map[string]string {
	was := proto.CloneOf(now.Message.(*listenerv3.Listener))
	_, last, err := now.Encode()
	var lacks []string
	versions := map[string]string{}
	for i := len(forms) - 1; i >= 0 && err == nil; i-- {
		forms[i].back(was)
		var version string
		if _, version, err = resource.New(l.Name, was).Encode(); err == nil && version != last {
			lacks, last = append(lacks, forms[i].lacks), version
			versions[version] = strings.Join(lacks, ", ")
		}
	}
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
