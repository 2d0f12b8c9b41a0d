//go:build real

package envoy

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/desired"
)

// What Envoy does not see by itself, content that is copied over in place, is served once the
// Secrets are spelled in another way; a certificate that is added is served to whoever asks
// for its name. Connections stay.
func TestRealCertificateReread(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) edge.TLS {
		return edge.TLS{Certificate: filepath.Join(dir, name+".crt"), Key: filepath.Join(dir, name+".key")}
	}
	files, next, shop := file("tls"), file("next"), file("shop")
	pair(t, files, 1)
	web := freeAddr(t)
	c := edge.Config{Listeners: []edge.Listener{{Name: "web", Address: web, TLS: &files}}, Services: []edge.Service{{Name: "chat", Listener: "web"}}}
	wishes := desired.Wishes{"chat": to("blue", map[discovery.Colour][]desired.Endpoint{"blue": serving(backend(t, "blue"))})}
	w := start(t, c, wishes)
	dial := func(name string) *tls.Conn {
		t.Helper()
		// Self-signed: what counts here is which certificate it is.
		conn, err := tls.Dial("tcp", web.String(), &tls.Config{InsecureSkipVerify: true, ServerName: name, NextProtos: []string{"http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	serial := func(name string) int64 { return dial(name).ConnectionState().PeerCertificates[0].SerialNumber.Int64() }
	shows := func(name string, want int64) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); serial(name) != want; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("certificate %d is not served for %q", want, name)
			}
		}
	}
	first := dial("")
	shows("shop.example", 1)
	pair(t, next, 2)
	for from, over := range map[string]string{next.Key: files.Key, next.Certificate: files.Certificate} {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(over, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.build.Reread()
	w.tell(t, wishes)
	shows("", 2)
	pair(t, shop, 3, "shop.example")
	more := files
	more.More = []edge.Pair{{Certificate: shop.Certificate, Key: shop.Key}}
	w.config.Listeners = []edge.Listener{{Name: "web", Address: web, TLS: &more}}
	w.tell(t, wishes)
	shows("shop.example", 3)
	shows("", 2)
	if _, err := fmt.Fprint(first, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if res, err := http.ReadResponse(bufio.NewReader(first), nil); err != nil || res.StatusCode != 200 {
		t.Errorf("the first connection: %v, %v", res, err)
	}
}

// Only who has a certificate that the authority signed comes through, and the instance is told
// who it is.
func TestRealClientCertificate(t *testing.T) {
	dir := t.TempDir()
	files := edge.TLS{Certificate: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), ClientCA: filepath.Join(dir, "me.crt")}
	me, other := edge.TLS{Certificate: files.ClientCA, Key: filepath.Join(dir, "me.key")}, edge.TLS{Certificate: filepath.Join(dir, "o.crt"), Key: filepath.Join(dir, "o.key")}
	pair(t, files, 1)
	pair(t, me, 2, "me.example")
	pair(t, other, 3, "me.example")
	web := freeAddr(t)
	c := edge.Config{Listeners: []edge.Listener{{Name: "web", Address: web, TLS: &files}}, Services: []edge.Service{{Name: "chat", Listener: "web"}}}
	start(t, c, desired.Wishes{"chat": to("blue", map[discovery.Colour][]desired.Endpoint{"blue": serving(mirror(t))})})
	get := func(who *edge.TLS) (string, error) {
		conf := &tls.Config{InsecureSkipVerify: true}
		if who != nil {
			pair, err := tls.LoadX509KeyPair(who.Certificate, who.Key)
			if err != nil {
				t.Fatal(err)
			}
			conf.Certificates = []tls.Certificate{pair}
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
		res, err := client.Get("https://" + web.String() + "/x")
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		return string(b), err
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		got, err := get(&me)
		if err == nil && strings.Contains(got, "X-Forwarded-Client-Cert: ") && strings.Contains(got, "DNS=me.example") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("with a certificate: %q, %v", got, err)
		}
	}
	if got, err := get(nil); err == nil {
		t.Errorf("without a certificate: %q", got)
	}
	if got, err := get(&other); err == nil {
		t.Errorf("with another's certificate: %q", got)
	}
}

// pair writes a self-signed certificate and its key as operators replace them:
// written beside, then moved over.
func pair(t *testing.T, files edge.TLS, serial int64, names ...string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: names,
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
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
	start(t, c, desired.Wishes{
		"chat": to("blue", map[discovery.Colour][]desired.Endpoint{"blue": serving(backend(t, "blue"))}),
		"line": to("blue", map[discovery.Colour][]desired.Endpoint{"blue": serving(echo(t, "blue"))}),
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
