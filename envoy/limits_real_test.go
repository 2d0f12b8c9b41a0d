//go:build real

package envoy

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// tryWS dials a WebSocket that may be refused.
func tryWS(t *testing.T, url string) (*fleet.Socket, *http.Response) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, res, err := fleet.DialSocket(ctx, url)
	if res == nil {
		t.Fatal(err)
	}
	if err == nil {
		t.Cleanup(func() { _ = c.Close() })
	}
	return c, res
}

// tryTCP dials a raw connection that may be closed at once.
func tryTCP(t *testing.T, a netip.AddrPort) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", a.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		return nil
	}
	return c
}

// becomes polls until a new connection is admitted, or is not; those that are
// admitted meanwhile are ended. An Envoy's workers learn of a limit, and of an
// ended connection, a moment after the acknowledgement.
func becomes(t *testing.T, admitted bool, try func() (end func())) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		end := try()
		if (end != nil) == admitted {
			return
		}
		if end != nil {
			end()
		}
		if time.Now().After(deadline) {
			t.Fatalf("a new connection is still admitted: %v", !admitted)
		}
	}
}

// A limit turns away new connections only, each in its protocol's way; those
// that are above it stay.
func TestRealLimits(t *testing.T) {
	web, raw := freeAddr(t), freeAddr(t)
	c := edge.Config{
		Listeners: []edge.Listener{{Name: "web", Address: web}, {Name: "raw", Address: raw}},
		Services: []edge.Service{
			{Name: "chat", Listener: "web", Prefix: "/chat"}, {Name: "feeds", Listener: "web", Prefix: "/feeds", HTTP2: true},
			{Name: "line", Listener: "raw", Protocol: edge.TCP},
		},
	}
	http, tcp := backend(t, "blue"), echo(t, "blue")
	wishes := func(limit, proxies int) desired.Wishes {
		web := to("blue", map[discovery.Colour][]desired.Endpoint{"blue": serving(http)})
		line := to("blue", map[discovery.Colour][]desired.Endpoint{"blue": serving(tcp)})
		if limit > 0 {
			web.Limits, web.Proxies = map[discovery.Colour]int{"blue": limit}, proxies
			line.Limits, line.Proxies = web.Limits, proxies
		}
		return desired.Wishes{"chat": web, "feeds": web, "line": line}
	}
	w := start(t, c, wishes(0, 0))
	url := "ws://" + web.String() + "/chat/ws"
	ws := func() func() {
		c, res := tryWS(t, url)
		if c == nil {
			if res.StatusCode != 503 || res.Header.Get("x-envoy-overloaded") != "true" || res.Header.Get("Retry-After") != "1" {
				t.Fatalf("refused with %s, %v", res.Status, res.Header)
			}
			return nil
		}
		return func() { _ = c.Close() }
	}
	line := func() func() {
		if c := tryTCP(t, raw); c != nil {
			return func() { _ = c.Close() }
		}
		return nil
	}
	const held = 10
	var sockets []*fleet.Socket
	var ends []func()
	for range held {
		c, _ := dialWS(t, url)
		sockets = append(sockets, c)
		open(t, client(true), "http://"+web.String()+"/feeds/x")
	}
	conn, in, _ := dialTCP(t, raw)
	for range held - 1 {
		ends = append(ends, line())
	}
	alive := func() {
		t.Helper()
		for _, c := range sockets {
			chats(t, c)
		}
		hears(t, in, conn, "still there")
	}
	alive()

	// Below what is held: 7 over 2 proxies is 4 here.
	w.tellAndWait(t, wishes(7, 2), RuntimeType)
	becomes(t, false, ws)
	becomes(t, false, line)
	for range 20 {
		if ws() != nil || line() != nil {
			t.Fatal("a connection above the limit is admitted")
		}
	}
	if res, err := client(true).Get("http://" + web.String() + "/feeds/y"); err != nil || res.StatusCode != 503 {
		t.Errorf("an h2 stream above the limit: %v, %v", res, err)
	}
	alive()
	// Room for exactly two more.
	w.tellAndWait(t, wishes(2*held+4, 2), RuntimeType)
	for range 2 {
		becomes(t, true, ws)
		becomes(t, true, line)
	}
	if ws() != nil || line() != nil {
		t.Error("one more than the limit is admitted")
	}
	// Who leaves makes room for another.
	_ = sockets[0].Close()
	sockets = sockets[1:]
	ends[0]()
	becomes(t, true, ws)
	becomes(t, true, line)
	if ws() != nil || line() != nil {
		t.Error("one more than the limit is admitted after another has left")
	}
	// No limit any more.
	w.tellAndWait(t, wishes(0, 0), RuntimeType)
	for range 20 {
		becomes(t, true, ws)
		becomes(t, true, line)
	}
	alive()
}
