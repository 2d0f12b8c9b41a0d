package envoy

import (
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	httplimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	rawlimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/local_ratelimit/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// The storm guard is a filter in every Listener from the beginning; its buckets
// come as an extension config of their own, one for each Listener. They cannot
// stand in the route: every new RouteConfiguration fills a route's buckets up
// again, so a rollout that shifts in small steps would let a storm through.

// Where a route's metadata says which service it belongs to.
const ours, owner = "sluice", "service"

// stormName is the name of a Listener's storm guard; no Listener's own name has
// a slash.
func stormName(listener string) string { return listener + "/storm" }

// ListenerOf is the listener that the resource is a part of; empty for those that are of a
// service, or of all.
func ListenerOf(ref resource.Ref) string {
	switch ref.Type {
	case ListenerType, SecretType, RouteType, ExtensionType:
		listener, _, _ := strings.Cut(ref.Name, "/")
		return listener
	}
	return ""
}

// storm holds the buckets of the guarded services on a listener.
func storm(l edge.Listener, on []routed) resource.Resource {
	var m proto.Message
	if l.Protocol == edge.TCP {
		bucket := endless()
		if len(on) > 0 && on[0].StormGuard > 0 {
			bucket = on[0].bucket()
		}
		m = rawGuard(l.Name, bucket)
	} else {
		guard := httpGuard(l.Name)
		for _, s := range on {
			if s.StormGuard > 0 {
				guard.Descriptors = append(guard.Descriptors, &ratelimitv3.LocalRateLimitDescriptor{
					Entries:     []*ratelimitv3.RateLimitDescriptor_Entry{{Key: owner, Value: string(s.Name)}},
					TokenBucket: s.bucket(),
				})
			}
		}
		m = guard
	}
	name := stormName(l.Name)
	return resource.New(name, &corev3.TypedExtensionConfig{Name: name, TypedConfig: packed(m)})
}

// bucket is one proxy's part of the rate. It fills in small, whole tokens: about
// a tenth of a second's worth each time, and holds no more than that, so that
// after a pause no burst comes through. The interval is rounded up to Envoy's
// millisecond, so the rate is never exceeded, and kept but for 1 %.
func (s routed) bucket() *typev3.TokenBucket {
	rate, proxies := int(s.StormGuard), max(1, s.Proxies)
	tokens := max(1, rate/(10*proxies))
	every := (tokens*proxies*1000 + rate - 1) / rate
	return &typev3.TokenBucket{
		MaxTokens:     uint32(tokens),
		TokensPerFill: wrapperspb.UInt32(uint32(tokens)),
		FillInterval:  durationpb.New(time.Duration(every) * time.Millisecond),
	}
}

// owned is what a route says about whose it is.
func owned(s discovery.Service) *corev3.Metadata {
	return described(map[string]string{owner: string(s)})
}

// described is metadata under our own name.
func described(fields map[string]string) *corev3.Metadata {
	of := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for key, value := range fields {
		of.Fields[key] = structpb.NewStringValue(strings.ToValidUTF8(value, "?"))
	}
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{ours: of}}
}

// byOwner has each request ask for a token from the bucket of its route's owner.
func byOwner() []*routev3.RateLimit {
	return []*routev3.RateLimit{{Actions: []*routev3.RateLimit_Action{{
		ActionSpecifier: &routev3.RateLimit_Action_Metadata{Metadata: &routev3.RateLimit_Action_MetaData{
			DescriptorKey: owner,
			Source:        routev3.RateLimit_Action_MetaData_ROUTE_ENTRY,
			MetadataKey: &metadatav3.MetadataKey{Key: ours, Path: []*metadatav3.MetadataKey_PathSegment{{
				Segment: &metadatav3.MetadataKey_PathSegment_Key{Key: owner},
			}}},
		}},
	}}}}
}

// httpGuard without descriptors lets all pass. What it refuses is answered with
// 503, as an instance that drains does, and gRPC's UNAVAILABLE.
func httpGuard(listener string) *httplimitv3.LocalRateLimit {
	always := &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{Numerator: 100}}
	return &httplimitv3.LocalRateLimit{
		StatPrefix:     httpPrefix(listener),
		Status:         &typev3.HttpStatus{Code: typev3.StatusCode_ServiceUnavailable},
		FilterEnabled:  always,
		FilterEnforced: always,
		RateLimits:     byOwner(),
		// A local reply mapper does not see this filter's refusals.
		ResponseHeadersToAdd: []*corev3.HeaderValueOption{retryAfter()},
	}
}

// rawGuard closes the connections that find no token.
func rawGuard(listener string, bucket *typev3.TokenBucket) *rawlimitv3.LocalRateLimit {
	return &rawlimitv3.LocalRateLimit{StatPrefix: escape(listener), TokenBucket: bucket}
}

// endless is a bucket that is never empty: the filter of Envoy's that guards raw
// connections must have one.
func endless() *typev3.TokenBucket {
	return &typev3.TokenBucket{
		MaxTokens: 1 << 30, TokensPerFill: wrapperspb.UInt32(1 << 30), FillInterval: durationpb.New(time.Second),
	}
}

// httpStorm is the filter's place in a Listener: until it is told a guard it is
// none, in as few words as can be, since a Listener cannot take them back.
func httpStorm(l edge.Listener) *hcmv3.HttpFilter {
	none := packed(&httplimitv3.LocalRateLimit{StatPrefix: httpPrefix(l.Name)})
	return &hcmv3.HttpFilter{
		Name:       stormName(l.Name),
		ConfigType: &hcmv3.HttpFilter_ConfigDiscovery{ConfigDiscovery: discovered(none)},
	}
}

// httpPrefix puts the filter's counters beside the Listener's own.
func httpPrefix(listener string) string { return "http." + escape(listener) }

func rawStorm(l edge.Listener) *listenerv3.Filter {
	return &listenerv3.Filter{
		Name:       stormName(l.Name),
		ConfigType: &listenerv3.Filter_ConfigDiscovery{ConfigDiscovery: discovered(packed(rawGuard(l.Name, endless())))},
	}
}

// discovered has a filter told over xDS, and be as otherwise says until then.
func discovered(otherwise *anypb.Any) *corev3.ExtensionConfigSource {
	return &corev3.ExtensionConfigSource{
		ConfigSource:  ads(),
		DefaultConfig: otherwise,
		TypeUrls:      []string{otherwise.TypeUrl},
	}
}
