//go:build real

package envoy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout"
)

// pair writes a self-signed certificate and its key as operators replace them:
// written beside, then moved over.
func pair(t *testing.T, files edge.TLS, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	move := func(file, kind string, b []byte) {
		if err := os.WriteFile(file+".new", pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	move(files.Key, "PRIVATE KEY", private)
	move(files.Certificate, "CERTIFICATE", cert)
}

// A certificate that is replaced on disk is served to new connections without
// a word from the control plane, and established ones stay.
func TestRealCertificate(t *testing.T) {
	dir := t.TempDir()
	files := edge.TLS{Certificate: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key")}
	pair(t, files, 1)
	web, raw := freeAddr(t), freeAddr(t)
	c := edge.Config{
		Listeners: []edge.Listener{{Name: "web", Address: web, TLS: &files}, {Name: "raw", Address: raw, TLS: &files}},
		Services:  []edge.Service{{Name: "chat", Listener: "web"}, {Name: "line", Listener: "raw", Protocol: edge.TCP}},
	}
	start(t, c, rollout.Wishes{
		"chat": to("blue", map[discovery.Colour][]rollout.Endpoint{"blue": serving(backend(t, "blue"))}),
		"line": to("blue", map[discovery.Colour][]rollout.Endpoint{"blue": serving(echo(t, "blue"))}),
	})
	dial := func(a netip.AddrPort) *tls.Conn {
		t.Helper()
		// Self-signed: what counts here is which certificate it is.
		conn, err := tls.Dial("tcp", a.String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	serial := func(c *tls.Conn) int64 { return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64() }
	first, line := dial(web), dial(raw)
	if got := first.ConnectionState().NegotiatedProtocol; got != "h2" {
		t.Errorf("HTTP listener agreed on %q", got)
	}
	if got := line.ConnectionState().NegotiatedProtocol; got != "" {
		t.Errorf("TCP listener agreed on %q", got)
	}
	pair(t, files, 2)
	for deadline := time.Now().Add(10 * time.Second); serial(dial(web)) != 2 || serial(dial(raw)) != 2; {
		if time.Now().After(deadline) {
			t.Fatal("the new certificate is not served")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if _, err := line.Write([]byte("still here\n")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len("blue\nstill here\n"))
	for n := 0; n < len(b); {
		m, err := line.Read(b[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += m
	}
}
