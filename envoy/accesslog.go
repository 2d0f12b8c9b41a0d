package envoy

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	grpclogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"
	tracingv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/sluice-proxy/sluice/envoy/edge"
)

// What routes and endpoints say about themselves, beside the owner, for access logs and spans.
const colourKey, instanceKey, rolloutKey = "colour", "instance", "rollout"

// commonFields are what every line of an access log has, by key. Colour and instance are those
// of the moment of the line, the rollout is the one that ran when the stream came.
var commonFields = map[string]string{
	"time":     "%START_TIME%",
	"what":     "%ACCESS_LOG_TYPE%",
	"service":  "%METADATA(ROUTE:sluice:service)%",
	"rollout":  "%METADATA(ROUTE:sluice:rollout)%",
	"cluster":  "%UPSTREAM_CLUSTER%",
	"colour":   "%METADATA(UPSTREAM_HOST:sluice:colour)%",
	"instance": "%METADATA(UPSTREAM_HOST:sluice:instance)%",
	"address":  "%UPSTREAM_HOST%",
	"peer":     "%UPSTREAM_LOCAL_ADDRESS%",
	"client":   "%DOWNSTREAM_REMOTE_ADDRESS%",
	"flags":    "%RESPONSE_FLAGS%",
	"received": "%BYTES_RECEIVED%",
	"sent":     "%BYTES_SENT%",
	"ms":       "%DURATION%",
}

// httpFields are what a line about a request has beside these.
var httpFields = map[string]string{
	"node":    "%REQ(X-ENVOY-DOWNSTREAM-SERVICE-NODE)%",
	"method":  "%REQ(:METHOD)%",
	"host":    "%REQ(:AUTHORITY)%",
	"path":    "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
	"status":  "%RESPONSE_CODE%",
	"details": "%RESPONSE_CODE_DETAILS%",
	"id":      "%REQ(X-REQUEST-ID)%",
}

// httpLog is the access log of an HTTP listener; nil for none.
func httpLog(l edge.Listener) []*accesslogv3.AccessLog {
	if l.AccessLog.GRPC.IsValid() {
		return grpcLog("envoy.access_loggers.http_grpc", &grpclogv3.HttpGrpcAccessLogConfig{CommonConfig: logService(l)})
	}
	return fileLog(l, commonFields, httpFields)
}

// rawLog is that of a TCP listener.
func rawLog(l edge.Listener) []*accesslogv3.AccessLog {
	if l.AccessLog.GRPC.IsValid() {
		return grpcLog("envoy.access_loggers.tcp_grpc", &grpclogv3.TcpGrpcAccessLogConfig{CommonConfig: logService(l)})
	}
	return fileLog(l, commonFields)
}

func grpcLog(name string, m proto.Message) []*accesslogv3.AccessLog {
	return []*accesslogv3.AccessLog{{Name: name, ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: packed(m)}}}
}

// fileLog writes one JSON object in a line.
func fileLog(l edge.Listener, all ...map[string]string) []*accesslogv3.AccessLog {
	if l.AccessLog.File == "" {
		return nil
	}
	fields := map[string]*structpb.Value{"listener": structpb.NewStringValue(l.Name)}
	for _, some := range all {
		for key, value := range some {
			fields[key] = structpb.NewStringValue(value)
		}
	}
	return []*accesslogv3.AccessLog{{
		Name: "envoy.access_loggers.file",
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: packed(&filelogv3.FileAccessLog{
			Path: l.AccessLog.File,
			AccessLogFormat: &filelogv3.FileAccessLog_LogFormat{LogFormat: &corev3.SubstitutionFormatString{
				Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: &structpb.Struct{Fields: fields}},
			}},
		})},
	}}
}

// logService is an access log service of Envoy's; an entry names the Envoy and the cluster by
// itself.
func logService(l edge.Listener) *grpclogv3.CommonGrpcAccessLogConfig {
	return &grpclogv3.CommonGrpcAccessLogConfig{
		LogName: l.Name, GrpcService: collected(logCluster(l)), TransportApiVersion: corev3.ApiVersion_V3, CustomTags: tags(),
	}
}

// tags are the service and its side of a stream.
func tags() []*tracingv3.CustomTag {
	tag := func(name string, kind *metadatav3.MetadataKind, key string) *tracingv3.CustomTag {
		return &tracingv3.CustomTag{Tag: name, Type: &tracingv3.CustomTag_Metadata_{Metadata: &tracingv3.CustomTag_Metadata{
			Kind: kind,
			MetadataKey: &metadatav3.MetadataKey{Key: ours, Path: []*metadatav3.MetadataKey_PathSegment{{
				Segment: &metadatav3.MetadataKey_PathSegment_Key{Key: key},
			}}},
		}}}
	}
	route := &metadatav3.MetadataKind{Kind: &metadatav3.MetadataKind_Route_{Route: &metadatav3.MetadataKind_Route{}}}
	host := &metadatav3.MetadataKind{Kind: &metadatav3.MetadataKind_Host_{Host: &metadatav3.MetadataKind_Host{}}}
	return []*tracingv3.CustomTag{
		tag("sluice.service", route, owner), tag("sluice.rollout", route, rolloutKey),
		tag("sluice.colour", host, colourKey), tag("sluice.instance", host, instanceKey),
	}
}
