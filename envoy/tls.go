package envoy

import (
	"path"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// transport refers to the listener's Secret by name, so that the Listener stays
// the same whatever happens to the certificate; nil for plain text.
func transport(l edge.Listener) *corev3.TransportSocket {
	if l.TLS == nil {
		return nil
	}
	common := &tlsv3.CommonTlsContext{
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: l.Name, SdsConfig: ads()}},
	}
	if l.Protocol != edge.TCP {
		common.AlpnProtocols = []string{"h2", "http/1.1"}
	}
	return &corev3.TransportSocket{
		Name: "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{
			TypedConfig: packed(&tlsv3.DownstreamTlsContext{CommonTlsContext: common}),
		},
	}
}

// Respell is an encoded Secret with its paths spelled in another way. An Envoy that could not
// read the files takes the same Secret for no change, acknowledges it and does not look again.
func Respell(body []byte, n int) []byte {
	s := &tlsv3.Secret{}
	if proto.Unmarshal(body, s) != nil || s.GetTlsCertificate() == nil {
		return body
	}
	for _, file := range []*corev3.DataSource{s.GetTlsCertificate().GetCertificateChain(), s.GetTlsCertificate().GetPrivateKey()} {
		if name, ok := file.GetSpecifier().(*corev3.DataSource_Filename); ok {
			dir, base := path.Split(name.Filename)
			name.Filename = dir + strings.Repeat("./", n) + base
		}
	}
	spelled, err := proto.MarshalOptions{Deterministic: true}.Marshal(s)
	if err != nil {
		return body
	}
	return spelled
}

// secret names the files; Envoy reads them on its own machine, and again when
// something is moved into their directory (also the way Kubernetes replaces a
// mounted secret). It has to be a Secret: in the Listener itself Envoy reads
// them once.
func secret(l edge.Listener) resource.Resource {
	file := func(name string) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: name}}
	}
	return resource.New(l.Name, &tlsv3.Secret{
		Name: l.Name,
		Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: file(l.TLS.Certificate),
			PrivateKey:       file(l.TLS.Key),
			WatchedDirectory: &corev3.WatchedDirectory{Path: path.Dir(l.TLS.Certificate)},
		}},
	})
}
