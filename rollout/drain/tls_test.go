//go:build go1.26

package drain_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/sluice-proxy/sluice/rollout/drain"
)

// A client over TLS hears close_notify, whichever way the listener is wrapped: without it
// OpenSSL calls the end an error, and nobody can tell it from a cut.
func TestTLSEndsWithCloseNotify(t *testing.T) {
	issuer := httptest.NewTLSServer(http.NotFoundHandler())
	defer issuer.Close()
	server := &tls.Config{Certificates: issuer.TLS.Certificates}
	for name, wrap := range map[string]func(*drain.Gate, net.Listener) net.Listener{
		"the gate above TLS": func(g *drain.Gate, ln net.Listener) net.Listener { return g.Listener(tls.NewListener(ln, server)) },
		"TLS above the gate": func(g *drain.Gate, ln net.Listener) net.Listener { return tls.NewListener(g.Listener(ln), server) },
	} {
		for version, number := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
			t.Run(name+" "+version, func(t *testing.T) {
				raw, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				i := newInstance(t, patient, plain, http.NotFoundHandler())
				ln := wrap(i.Gate, raw)
				served := make(chan struct{})
				go func() {
					defer close(served)
					c, err := ln.Accept()
					if err != nil {
						return
					}
					defer c.Close()
					_, _ = io.Copy(c, c)
				}()
				below, err := net.Dial("tcp", raw.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				noted := &lastRecord{Conn: below}
				c := tls.Client(noted, &tls.Config{InsecureSkipVerify: true, MinVersion: number, MaxVersion: number})
				defer c.Close()
				if _, err := io.WriteString(c, "hello"); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
					t.Fatal(err)
				}
				i.order(t, 1, 0)
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
					t.Errorf("the client's read: %v, want EOF", err)
				}
				if noted.ended {
					t.Error("the TCP connection ended before TLS did: there was no close_notify")
				}
				_ = c.Close()
				<-served
				i.emptied(t)
				_ = raw.Close()
			})
		}
	}
}

// lastRecord notes whether the TCP connection ended while TLS still read.
type lastRecord struct {
	net.Conn
	ended bool
}

func (l *lastRecord) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	l.ended = l.ended || err != nil
	return n, err
}
