//go:build real

package envoy

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// sessions is an instance that says its name, and refuses everything once it is told to.
func sessions(t *testing.T, name string, refuses *atomic.Bool) netip.AddrPort {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case refuses.Load():
			w.Header().Set(refusedHeader, "draining")
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.URL.Path == "/ws":
			w.Header().Set("Instance", name)
			fleet.Echo(w, r)
		default:
			fmt.Fprint(w, name)
		}
	}))
	t.Cleanup(s.CloseClientConnections)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// Requests of one client reach one instance. After the switch those of its open session still
// do, all others reach the target, and a refused one lands there as well. A WebSocket that was
// opened before stays through all of it.
func TestRealAffinity(t *testing.T) {
	web := freeAddr(t)
	c := edge.Config{
		Listeners: []edge.Listener{{Name: "web", Address: web}},
		Services:  []edge.Service{{Name: "chat", Listener: "web", Affinity: &edge.Affinity{Cookie: "aff", Session: edge.Session{Query: "sid"}}}},
	}
	var refuses, never atomic.Bool
	blues := []netip.AddrPort{sessions(t, "blue1", &refuses), sessions(t, "blue2", &refuses)}
	greens := []netip.AddrPort{sessions(t, "green1", &never), sessions(t, "green2", &never)}
	wishes := func(c discovery.Colour, of func(...netip.AddrPort) []desired.Endpoint) desired.Wishes {
		return desired.Wishes{"chat": to(c, map[discovery.Colour][]desired.Endpoint{"blue": of(blues...), "green": serving(greens...)})}
	}
	w := start(t, c, wishes("blue", serving))
	ask := func(method, query, cookie string) (on, next string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+web.String()+"/x"+query, strings.NewReader(strings.Repeat("x", 60_000)))
		if err != nil {
			t.Fatal(err)
		}
		if cookie != "" {
			req.Header.Set("Cookie", cookie)
		}
		res, err := client(false).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b := make([]byte, 32)
		n, _ := res.Body.Read(b)
		if res.StatusCode != http.StatusOK {
			t.Fatalf("%s %s: %s", method, query, res.Status)
		}
		next, _, _ = strings.Cut(res.Header.Get("Set-Cookie"), ";")
		return string(b[:n]), next
	}
	ws, on := dialWS(t, "ws://"+web.String()+"/ws")
	if !strings.HasPrefix(on, "blue") {
		t.Fatalf("the WebSocket is on %s", on)
	}
	first, cookie := ask("GET", "", "")
	unquoted := strings.ReplaceAll(strings.ReplaceAll(cookie, `"`, ""), "aff=", "aff=")
	for range 10 {
		if on, _ := ask("POST", "?sid=1", cookie); on != first {
			t.Fatalf("with the cookie of %s a request reached %s", first, on)
		}
	}
	w.tellAndWait(t, wishes("green", draining), RouteType, EndpointType)
	chats(t, ws)
	for i := range 10 {
		if on, _ := ask("GET", "?sid=1", []string{cookie, unquoted}[i%2]); on != first {
			t.Errorf("a request of an open session on %s, which drains, reached %s", first, on)
		}
		if on, _ := ask("GET", "", cookie); !strings.HasPrefix(on, "green") {
			t.Errorf("a new request with an old cookie reached %s", on)
		}
	}
	refuses.Store(true)
	for _, method := range []string{"GET", "POST"} {
		on, next := ask(method, "?sid=1", cookie)
		if !strings.HasPrefix(on, "green") || next == "" || next == cookie {
			t.Errorf("a refused %s reached %s and is stamped %q", method, on, next)
		}
		if again, _ := ask(method, "?sid=2", next); again != on {
			t.Errorf("with the cookie of %s a request reached %s", on, again)
		}
	}
	chats(t, ws)
	w.tellAndWait(t, wishes("green", func(...netip.AddrPort) []desired.Endpoint { return nil }), RouteType, EndpointType)
	chats(t, ws)
}
