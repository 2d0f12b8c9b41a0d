package sidecar_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/sidecar"
)

const (
	proxyV1 = "PROXY TCP4 192.0.2.7 198.51.100.1 1234 443\r\n"
	proxyV2 = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\x04\xd2\x01\xbb"
)

// The PROXY header of either version is taken, and told to the server before all else;
// what stands behind it in one breath is the client's.
func TestProxyProtocol(t *testing.T) {
	for flag, heard := range map[string]map[string]string{
		"in":        {proxyV1: "", proxyV2: ""},
		"in,out":    {proxyV1: proxyV2, proxyV2: proxyV2},
		"in,out-v1": {proxyV1: proxyV1, proxyV2: proxyV1},
	} {
		for said, want := range heard {
			var p sidecar.ProxyProtocol
			if err := p.Set(flag); err != nil {
				t.Fatal(err)
			}
			w := newWorld(t, sidecar.Options{Proxy: p, To: server(t, func(p *peer) {
				p.hear(want + upgrade)
				p.say(switching)
				_ = p.hearAll()
			})})
			c := w.dial()
			c.say(said + upgrade)
			c.hear(switching)
			if s := w.Status(); s.Active != 1 || s.Peers["127.0.0.1"].Held != 1 {
				t.Errorf("%s: status %+v, want one from the machine that connected", flag, s)
			}
			w.order(1, 0)
			c.hear(goodbye)
			c.say("\x88\x80abcd")
			c.hearEnd()
			_ = c.CloseWrite()
			w.emptied()
			again := w.dial()
			again.say(said)
			again.mustBeRefused(drain.ErrDraining)
		}
	}
}

// Without a header of the client's the server is told the connection's own addresses.
func TestProxyProtocolOut(t *testing.T) {
	heard := make(chan string, 1)
	w := newWorld(t, sidecar.Options{Proxy: sidecar.ProxyProtocol{Out: 1}, To: server(t, func(p *peer) {
		line, _ := p.r.ReadString('\n')
		heard <- line
	})})
	c := w.dial()
	from, to := c.LocalAddr().(*net.TCPAddr), c.RemoteAddr().(*net.TCPAddr)
	if got, want := <-heard, fmt.Sprintf("PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n", from.Port, to.Port); got != want {
		t.Errorf("the server heard %q, want %q", got, want)
	}
}

// Who does not send a header is nobody's client.
func TestProxyProtocolWithoutHeader(t *testing.T) {
	w := newWorld(t, sidecar.Options{Proxy: sidecar.ProxyProtocol{In: true}, To: server(t, func(p *peer) {
		if text := p.hearAll(); text != "" {
			t.Errorf("the server heard %q", text)
		}
	})})
	c := w.dial()
	c.say(upgrade)
	if text := c.hearAll(); text != "" {
		t.Errorf("the client heard %q, want the end", text)
	}
	if s := w.Status(); s.Accepted != 0 {
		t.Errorf("status %+v, want nobody", s)
	}
	for _, wrong := range []string{"", "inn", "in,,out", "out,out-v1"} {
		if err := new(sidecar.ProxyProtocol).Set(wrong); err == nil || !strings.Contains(err.Error(), "is none of in, out and out-v1") {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}
