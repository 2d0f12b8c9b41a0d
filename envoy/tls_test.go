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
	body, _, err := secrets(l, 0)[0].Encode()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{string(body): true}
	spelled := func(n int) []byte {
		if n < 2 {
			return Respell(body, n+1)
		}
		b, _, err := secrets(l, n-1)[0].Encode()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for n := range 5 {
		other := spelled(n)
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
