package envoy

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	chainv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/filter_chain/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// The door is the place in every HTTP Listener for filters that nobody knows yet. What stands in
// it comes as extension configs of its own, so filters are set, changed and taken away without
// a change of the Listener, which would end its connections. An Envoy from 1.39 on has one door
// for any filters in order. An older one would refuse a Listener that names that; it has
// doorSlots doors, each for one filter of the types that an Envoy of any version here has.
// Neither has a default: until it is told what stands in the door it lets nobody in.

const httpFilterPrefix = "type.googleapis.com/envoy.extensions.filters.http."

// DoorType is what an Envoy has to know for the one door.
const DoorType = httpFilterPrefix + "filter_chain.v3.FilterChainConfig"

// doorSlots is how many filters an older Envoy has room for.
const doorSlots = 4

// slotTypes are what may stand in the doors of an older Envoy. The list is written once, as
// the Listener is.
var slotTypes = []string{
	"adaptive_concurrency.v3.AdaptiveConcurrency", "admission_control.v3.AdmissionControl", "api_key_auth.v3.ApiKeyAuth",
	"bandwidth_limit.v3.BandwidthLimit", "basic_auth.v3.BasicAuth", "buffer.v3.Buffer", "compressor.v3.Compressor", "cors.v3.Cors",
	"csrf.v3.CsrfPolicy", "custom_response.v3.CustomResponse", "ext_authz.v3.ExtAuthz", "ext_proc.v3.ExternalProcessor",
	"fault.v3.HTTPFault", "grpc_stats.v3.FilterConfig", "header_mutation.v3.HeaderMutation", "header_to_metadata.v3.Config",
	"health_check.v3.HealthCheck", "ip_tagging.v3.IPTagging", "jwt_authn.v3.JwtAuthentication", "local_ratelimit.v3.LocalRateLimit",
	"lua.v3.Lua", "oauth2.v3.OAuth2", "ratelimit.v3.RateLimit", "rbac.v3.RBAC", "set_filter_state.v3.Config",
	"set_metadata.v3.Config", "tap.v3.Tap", "wasm.v3.Wasm",
}

// doorName names the door of a listener, or the i-th of an older Envoy's.
func doorName(listener string) string            { return listener + "/door" }
func doorSlotName(listener string, i int) string { return fmt.Sprintf("%s/door/%d", listener, i) }

// door is the place of own filters in a Listener, for an Envoy that has DoorType or not.
func door(listener string, has bool) []*hcmv3.HttpFilter {
	place := func(name string, types ...string) *hcmv3.HttpFilter {
		return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_ConfigDiscovery{
			ConfigDiscovery: &corev3.ExtensionConfigSource{ConfigSource: ads(), TypeUrls: types},
		}}
	}
	if has {
		return []*hcmv3.HttpFilter{place(doorName(listener), DoorType)}
	}
	var types []string
	for _, t := range slotTypes {
		types = append(types, httpFilterPrefix+t)
	}
	var out []*hcmv3.HttpFilter
	for i := range doorSlots {
		out = append(out, place(doorSlotName(listener, i), types...))
	}
	return out
}

// slotted is a Listener as an Envoy without the one door is told it.
func slotted(l *listenerv3.Listener) *listenerv3.Listener {
	l = proto.CloneOf(l)
	manager(l, func(m *hcmv3.HttpConnectionManager) {
		for i, f := range m.HttpFilters {
			if f.Name == doorName(l.Name) {
				m.HttpFilters = slices.Concat(m.HttpFilters[:i], door(l.Name, false), m.HttpFilters[i+1:])
				return
			}
		}
	})
	return l
}

// filtered is what stands in the doors of a listener, for either kind of Envoy. An older one
// on which not all of the filters fit answers every request with 503: who may come in is not
// known there.
func filtered(l edge.Listener) []resource.Resource {
	if l.Protocol == edge.TCP {
		return nil
	}
	config := func(name string, m *anypb.Any) resource.Resource {
		return resource.New(name, &corev3.TypedExtensionConfig{Name: name, TypedConfig: m})
	}
	filters, err := own(l)
	chain := &chainv3.FilterChainConfig{}
	if len(filters) > 0 {
		chain.DefaultFilterChain = &chainv3.FilterChain{Filters: filters}
	}
	out := []resource.Resource{config(doorName(l.Name), packed(chain))}
	fits := err == nil && len(filters) <= doorSlots
	for _, f := range filters {
		fits = fits && slices.Contains(slotTypes, strings.TrimPrefix(f.TypedConfig.TypeUrl, httpFilterPrefix))
	}
	for i := range doorSlots {
		stands := packed(&mutationv3.HeaderMutation{}) // which changes nothing
		switch {
		case !fits:
			stands = packed(closed())
		case i < len(filters):
			stands = filters[i].TypedConfig
		}
		out = append(out, config(doorSlotName(l.Name, i), stands))
	}
	return out
}

// closed lets nobody in.
func closed() *faultv3.HTTPFault {
	return &faultv3.HTTPFault{Abort: &faultv3.FaultAbort{
		ErrorType:  &faultv3.FaultAbort_HttpStatus{HttpStatus: 503},
		Percentage: &typev3.FractionalPercent{Numerator: 100},
	}}
}

// own are the listener's own filters, read by Envoy's protos.
func own(l edge.Listener) ([]*corev3.TypedExtensionConfig, error) {
	var out []*corev3.TypedExtensionConfig
	for i, f := range l.HTTPFilters {
		m := &corev3.TypedExtensionConfig{}
		text, err := json.Marshal(map[string]any{"name": f.Name, "typed_config": f.Config})
		if err == nil {
			err = protojson.Unmarshal(text, m)
		}
		if err == nil {
			err = validate(m)
		}
		if err != nil {
			return nil, &unread{i, err}
		}
		out = append(out, m)
	}
	return out, nil
}

// unread is a filter that cannot be read.
type unread struct {
	at  int
	err error
}

func (u *unread) Error() string { return u.err.Error() }

// Faults are all that is wrong with a Config: the rules that it breaks, and filters that Envoy's
// protos do not read.
func Faults(c edge.Config) []edge.Fault {
	all := c.Check()
	for i, l := range c.Listeners {
		var bad *unread
		if _, err := own(l); !errors.As(err, &bad) {
			continue
		}
		f := edge.Fault{
			Key: fmt.Sprintf("listeners[%d].http_filters[%d].typed_config", i, bad.at), Listeners: []string{l.Name},
			Text: fmt.Sprintf("is not what an Envoy would read (%s); correct it", strings.ReplaceAll(bad.Error(), "\u00a0", " ")),
		}
		for _, s := range c.Services {
			if s.Listener == l.Name {
				f.Services = append(f.Services, s.Name)
			}
		}
		all = append(all, f)
	}
	return all
}
