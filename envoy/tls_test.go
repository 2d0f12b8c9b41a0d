package envoy

import (
	"path"
	"testing"

	"google.golang.org/protobuf/proto"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/sluice-proxy/sluice/envoy/edge"
)

// A Secret that is spelled in another way has other bytes and names the same files.
func TestRespell(t *testing.T) {
	l := edge.Listener{Name: "web", TLS: &edge.TLS{Certificate: "/etc/web/cert.pem", Key: "/etc/keys/web.key"}}
	body, _, err := secret(l).Encode()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{string(body): true}
	for n := range 2 {
		other := Respell(body, n+1)
		var s tlsv3.Secret
		if err := proto.Unmarshal(other, &s); err != nil {
			t.Fatal(err)
		}
		c := s.GetTlsCertificate()
		if seen[string(other)] || path.Clean(c.CertificateChain.GetFilename()) != l.TLS.Certificate || path.Clean(c.PrivateKey.GetFilename()) != l.TLS.Key {
			t.Errorf("the %d. spelling is %v", n+1, &s)
		}
		seen[string(other)] = true
	}
	if got := Respell([]byte("no secret"), 1); string(got) != "no secret" {
		t.Errorf("%q", got)
	}
}
