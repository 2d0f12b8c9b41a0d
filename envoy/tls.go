package envoy

import (
	"fmt"
	"path"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// slot names the i-th Secret of a listener.
func slot(listener string, i int) string {
	if i == 0 {
		return listener
	}
	return fmt.Sprintf("%s/%d", listener, i)
}

// clientsName names the Secret of the authorities that sign clients' certificates.
func clientsName(listener string) string { return listener + "/clients" }

// transport refers to the listener's Secrets by name, so that the Listener stays
// the same whatever happens to the certificates, and has room for more of them; nil for
// plain text.
func transport(l edge.Listener) *corev3.TransportSocket {
	if l.TLS == nil {
		return nil
	}
	common := &tlsv3.CommonTlsContext{}
	for i := range edge.MaxPairs {
		common.TlsCertificateSdsSecretConfigs = append(common.TlsCertificateSdsSecretConfigs, &tlsv3.SdsSecretConfig{Name: slot(l.Name, i), SdsConfig: ads()})
	}
	if l.Protocol != edge.TCP {
		common.AlpnProtocols = []string{"h2", "http/1.1"}
	}
	m := &tlsv3.DownstreamTlsContext{CommonTlsContext: common}
	if l.TLS.ClientCA != "" {
		m.RequireClientCertificate = wrapperspb.Bool(true)
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{
			ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: clientsName(l.Name), SdsConfig: ads()},
		}
	}
	return &corev3.TransportSocket{
		Name:       "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed(m)},
	}
}

// Respell is an encoded Secret with its paths spelled in another way. An Envoy that could not
// read the files takes the same Secret for no change, acknowledges it and does not look again.
func Respell(body []byte, n int) []byte {
	s := &tlsv3.Secret{}
	if proto.Unmarshal(body, s) != nil {
		return body
	}
	for _, file := range []*corev3.DataSource{s.GetTlsCertificate().GetCertificateChain(), s.GetTlsCertificate().GetPrivateKey(), s.GetValidationContext().GetTrustedCa()} {
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

// spellings is how many ways there are to spell a path: in one more than two, since replicas
// and an operator may ask for another in one hour.
const spellings = 4

// secrets name the files; Envoy reads them on its own machine, and again when something is moved
// over them or the Secret comes with another spelling of their paths. They have to be
// Secrets: in the Listener itself Envoy reads files once. No directory is watched: Envoy would
// then look at that alone and miss a key that lies elsewhere. A spare slot holds the first
// certificate, since one that is not told of would be waited for.
func secrets(l edge.Listener, spelling int) []resource.Resource {
	if l.TLS == nil {
		return nil
	}
	file := func(name string) *corev3.DataSource {
		dir, base := path.Split(name)
		return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: dir + strings.Repeat("/", spelling) + base}}
	}
	var out []resource.Resource
	pairs := l.TLS.Pairs()
	for i := range edge.MaxPairs {
		p := pairs[0]
		if i < len(pairs) {
			p = pairs[i]
		}
		out = append(out, resource.New(slot(l.Name, i), &tlsv3.Secret{
			Name: slot(l.Name, i),
			Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: file(p.Certificate), PrivateKey: file(p.Key)}},
		}))
	}
	if l.TLS.ClientCA != "" {
		out = append(out, resource.New(clientsName(l.Name), &tlsv3.Secret{
			Name: clientsName(l.Name),
			Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: file(l.TLS.ClientCA)}},
		}))
	}
	return out
}
