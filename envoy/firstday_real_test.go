//go:build real

//lint:file-ignore SA1019 net/http sends no :protocol, which is what an extended CONNECT is

package envoy

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// mirror is an instance that answers with the request as it came, but WebSockets.
func mirror(t *testing.T) netip.AddrPort {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/ws") {
			fleet.Echo(w, r)
			return
		}
		fmt.Fprintf(w, "%s %s %s\n", r.Method, r.Host, r.Proto)
		_ = r.Header.Write(w)
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.CloseClientConnections)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// asks sends a request as it is written and returns the answer's status and body.
func asks(t *testing.T, at netip.AddrPort, request string) (int, string) {
	t.Helper()
	conn, in, err := dialed(at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, strings.ReplaceAll(request, "\n", "\r\n")+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	return res.StatusCode, string(body)
}

// What old balancers, odd clients and browsers send reaches an instance, and each request
// says truly which Envoy it came through.
func TestRealFirstDay(t *testing.T) {
	web := freeAddr(t)
	c := edge.Config{
		Listeners: []edge.Listener{{Name: "web", Address: web, Health: "/-/lb"}},
		Leaving:   []string{"edge-7"},
		Services:  []edge.Service{{Name: "chat", Listener: "web", Domains: []string{"Chat.example.com.", hostOfHTTP10, "127.0.0.1"}}},
	}
	all := map[discovery.Colour][]desired.Endpoint{"blue": serving(mirror(t))}
	wishes := desired.Wishes{"chat": to("blue", all)}
	w := start(t, c, wishes)
	const asked, claimed = "GET /-/lb HTTP/1.1\nHost: lb.internal", "GET /-/lb?x HTTP/1.1\nHost: chat.example.com\nX-Envoy-Downstream-Service-Node: edge-7"
	for _, r := range []struct {
		what, request string
		status        int
		body          string
	}{
		{"health", asked, 200, ""},
		{"health, with a name that is not its own", claimed, 200, ""},
		{"a host", "GET / HTTP/1.1\nHost: chat.example.com", 200, "GET chat.example.com HTTP/1.1\n"},
		{"a trailing dot", "GET / HTTP/1.1\nHost: CHAT.example.com.:8080", 200, "HTTP/1.1\n"},
		{"another host", "GET / HTTP/1.1\nHost: example.org", 404, ""},
		{"HTTP/1.0", "GET / HTTP/1.0\nHost: chat.example.com", 200, "HTTP/1.1\n"},
		{"HTTP/1.0 without a host", "OPTIONS / HTTP/1.0", 200, "OPTIONS " + hostOfHTTP10},
		{"an offer of TLS", "GET / HTTP/1.1\nHost: chat.example.com\nConnection: upgrade\nUpgrade: TLS/1.2, HTTP/1.1", 200, "GET"},
		{"an offer of h2c", "GET / HTTP/1.1\nHost: chat.example.com\nConnection: upgrade, http2-settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQAAP__", 200, "GET"},
		{"an offer of something", "POST / HTTP/1.1\nHost: chat.example.com\nContent-Length: 0\nConnection: upgrade\nUpgrade: foo", 200, "POST"},
		{"which Envoy", "GET / HTTP/1.1\nHost: chat.example.com\nX-Envoy-Downstream-Service-Node: edge-7", 200, "X-Envoy-Downstream-Service-Node: edge-1\r\n"},
		{"which Envoy, by a client with a name", "GET / HTTP/1.1\nHost: chat.example.com\nUser-Agent: me", 200, "User-Agent: me\r\nX-Envoy-Downstream-Service-Cluster: edge\r\nX-Envoy-Downstream-Service-Node: edge-1\r\n"},
	} {
		status, body := asks(t, web, r.request)
		if status != r.status || !strings.Contains(body, r.body) {
			t.Errorf("%s: %d, %q; want %d with %q", r.what, status, body, r.status, r.body)
		}
		if strings.Contains(strings.ToLower(body), "edge-7") || strings.Contains(body, "Websocket-Key") {
			t.Errorf("%s: the instance was told %q", r.what, body)
		}
	}
	ws, _ := dialWS(t, "ws://"+web.String()+"/ws")
	chats(t, ws)
	status, hears := extendedConnect(t, web, "chat.example.com")
	if status != 200 {
		t.Fatalf("a WebSocket in an HTTP/2 connection is answered with %d", status)
	}
	hears("over HTTP/2")
	chats(t, ws)
	w.config.Leaving = []string{"edge-7", "edge-1"}
	w.tellAndWait(t, wishes, RouteType)
	for _, health := range []string{asked, claimed} {
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			status, _ := asks(t, web, health)
			if status == 503 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("an Envoy that leaves answers %q with %d", health, status)
			}
		}
	}
	if status, _ := asks(t, web, "GET / HTTP/1.1\nHost: chat.example.com"); status != 200 {
		t.Errorf("an Envoy that leaves answers a client with %d", status)
	}
	chats(t, ws)
}

// extendedConnect opens a WebSocket as RFC 8441 says, and returns what sends a text and
// wants it back.
func extendedConnect(t *testing.T, at netip.AddrPort, host string) (int, func(string)) {
	t.Helper()
	h2 := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, _ string, _ *tls.Config) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, at.String())
	}}
	t.Cleanup(h2.CloseIdleConnections)
	in, out := io.Pipe()
	t.Cleanup(func() { _ = out.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodConnect, "http://"+host+"/ws", in)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{":protocol": {"websocket"}, "Sec-Websocket-Version": {"13"}}
	res, err := h2.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s: %v", host, err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res.StatusCode, func(text string) {
		t.Helper()
		mask := [4]byte{1, 2, 3, 4}
		frame := append([]byte{0x81, 0x80 | byte(len(text))}, mask[:]...)
		for i := range len(text) {
			frame = append(frame, text[i]^mask[i%4])
		}
		if _, err := out.Write(frame); err != nil {
			t.Fatal(err)
		}
		back := make([]byte, 2+len(text))
		if _, err := io.ReadFull(res.Body, back); err != nil || string(back[2:]) != text {
			t.Fatalf("%s: sent %q, got %q, %v", host, text, back, err)
		}
	}
}

// Behind balancers: whom they say the client is, and how it came, counts where it is trusted.
func TestRealBehindBalancers(t *testing.T) {
	hops, must, may, raw := freeAddr(t), freeAddr(t), freeAddr(t), freeAddr(t)
	log := filepath.Join(t.TempDir(), "access.log")
	c := edge.Config{
		Listeners: []edge.Listener{
			{Name: "hops", Address: hops, TrustedHops: 1, AccessLog: edge.AccessLog{File: log}, Tracing: &edge.Tracing{GRPC: freeAddr(t), Sample: 10_000}},
			{Name: "must", Address: must, ProxyProtocol: edge.Required, AccessLog: edge.AccessLog{GRPC: freeAddr(t)}},
			{Name: "may", Address: may, ProxyProtocol: edge.Optional},
			{Name: "raw", Address: raw, ProxyProtocol: edge.Required, AccessLog: edge.AccessLog{File: log}},
		},
		Services: []edge.Service{
			{Name: "a", Listener: "hops"}, {Name: "b", Listener: "must"}, {Name: "c", Listener: "may"}, {Name: "line", Listener: "raw", Protocol: edge.TCP},
		},
	}
	if faults := c.Check(); len(faults) > 0 {
		t.Fatal(faults)
	}
	all := map[discovery.Colour][]desired.Endpoint{"blue": serving(mirror(t))}
	lines := map[discovery.Colour][]desired.Endpoint{"blue": serving(echo(t, "blue"))}
	start(t, c, desired.Wishes{"a": to("blue", all), "b": to("blue", all), "c": to("blue", all), "line": to("blue", lines)})
	const line = "PROXY TCP4 198.51.100.7 127.0.0.1 5000 80\n"
	for _, r := range []struct {
		what    string
		at      netip.AddrPort
		request string
		want    []string
	}{
		{"a trusted balancer", hops, "GET / HTTP/1.1\nHost: x\nX-Forwarded-Proto: https\nX-Forwarded-For: 203.0.113.9, 198.51.100.7", []string{"X-Forwarded-Proto: https", "X-Envoy-External-Address: 198.51.100.7"}},
		{"a required line", must, line + "GET / HTTP/1.1\nHost: x\nX-Forwarded-Proto: https", []string{"X-Forwarded-Proto: http\r\n", "X-Forwarded-For: 198.51.100.7"}},
		{"an optional line", may, line + "GET / HTTP/1.1\nHost: x", []string{"X-Forwarded-For: 198.51.100.7"}},
		{"no optional line", may, "GET / HTTP/1.1\nHost: x", []string{"X-Envoy-External-Address: 127.0.0.1"}},
	} {
		status, body := asks(t, r.at, r.request)
		for _, want := range r.want {
			if status != 200 || !strings.Contains(body, want) {
				t.Errorf("%s: %d, %q; want %q", r.what, status, body, want)
			}
		}
	}
	conn, in, err := dialed(must)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if b, err := in.ReadByte(); err == nil {
		t.Errorf("without a required line it is answered, beginning with %q", b)
	}
	// The log is written by and by; what it says is what it said when the stream ended.
	want := map[string]string{"listener": "hops", "service": "a", "colour": "blue", "instance": all["blue"][0].Addr.String(), "cluster": "a-blue", "node": "edge-1", "what": "DownstreamEnd"}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		b, _ := os.ReadFile(log)
		first, _, whole := strings.Cut(string(b), "\n")
		if !whole {
			if time.Now().After(deadline) {
				t.Fatalf("nothing was logged: %q", b)
			}
			continue
		}
		var got map[string]any
		if err := json.Unmarshal([]byte(first), &got); err != nil {
			t.Fatalf("%q: %v", first, err)
		}
		for key, value := range want {
			if got[key] != value {
				t.Errorf("the log says that %s is %v, want %s, in %s", key, got[key], value, first)
			}
		}
		return
	}
}

// racer is an instance that closes each connection just when its second request comes, as one
// does whose keep-alive ends at that moment.
func racer(t *testing.T) netip.AddrPort {
	return accepting(t, func(c net.Conn) {
		defer c.Close()
		in := bufio.NewReader(c)
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		_, _ = in.Peek(1) // and leaves the next one unread
	})
}

// A request that may be sent twice survives an instance whose keep-alive ends at that moment,
// and one that may not is sent once; both survive an instance that cannot be connected to.
func TestRealKeepAliveRace(t *testing.T) {
	web := freeAddr(t)
	c := edge.Config{
		Listeners: []edge.Listener{{Name: "web", Address: web}},
		Services:  []edge.Service{{Name: "race", Listener: "web"}, {Name: "dead", Listener: "web", Prefix: "/dead"}},
	}
	start(t, c, desired.Wishes{
		"race": to("blue", map[discovery.Colour][]desired.Endpoint{"blue": serving(racer(t), racer(t))}),
		"dead": to("blue", map[discovery.Colour][]desired.Endpoint{"blue": serving(freeAddr(t), mirror(t))}),
	})
	codes := func(method, path string) (all []int) {
		for range 20 {
			status, _ := asks(t, web, method+" "+path+" HTTP/1.1\nHost: x\nContent-Length: 0")
			if !slices.Contains(all, status) {
				all = append(all, status)
			}
		}
		slices.Sort(all)
		return all
	}
	for _, r := range []struct {
		method, path string
		want         []int
	}{{"GET", "/", []int{200}}, {"POST", "/", []int{200, 503}}, {"GET", "/dead", []int{200}}, {"POST", "/dead", []int{200}}} {
		if got := codes(r.method, r.path); !slices.Equal(got, r.want) {
			t.Errorf("%s %s: %v, want %v", r.method, r.path, got, r.want)
		}
	}
}
