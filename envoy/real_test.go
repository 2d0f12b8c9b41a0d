//go:build real

package envoy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/units"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// backend speaks HTTP/1.1 and HTTP/2 without TLS. Every answer says which
// instance gave it and how it was asked.
func backend(t *testing.T, name string) netip.AddrPort {
	mux := http.NewServeMux()
	mux.HandleFunc("/chat/ws", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Instance", name)
		fleet.Echo(w, r)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		out := http.NewResponseController(w)
		_ = out.EnableFullDuplex()
		w.Header().Set("Instance", name)
		w.Header().Set("Asked", r.Proto+" "+r.Host)
		w.WriteHeader(200)
		_ = out.Flush()
		for lines := bufio.NewScanner(r.Body); lines.Scan(); {
			fmt.Fprintln(w, lines.Text())
			_ = out.Flush()
		}
	})
	s := httptest.NewUnstartedServer(mux)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.CloseClientConnections)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// accepting is a raw TCP instance that serves each connection.
func accepting(t *testing.T, serve func(net.Conn)) netip.AddrPort {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// echo is a raw TCP instance: it says its name, then what it hears.
func echo(t *testing.T, name string) netip.AddrPort {
	return accepting(t, func(c net.Conn) {
		fmt.Fprintln(c, name)
		_, _ = io.Copy(c, c)
	})
}

// to is the wish that all new connections go to one colour.
func to(c discovery.Colour, endpoints map[discovery.Colour][]desired.Endpoint) desired.Wish {
	return desired.Wish{Weights: map[discovery.Colour]units.Share{c: units.Whole}, Endpoints: endpoints}
}

func serving(addrs ...netip.AddrPort) (es []desired.Endpoint) {
	for _, a := range addrs {
		es = append(es, desired.Endpoint{ID: discovery.InstanceID(a.String()), Addr: a})
	}
	return es
}

func draining(addrs ...netip.AddrPort) []desired.Endpoint {
	es := serving(addrs...)
	for i := range es {
		es[i].Draining = true
	}
	return es
}

// client keeps no connection, so that each request is routed afresh.
func client(h2 bool) *http.Client {
	p := new(http.Protocols)
	p.SetHTTP1(!h2)
	p.SetUnencryptedHTTP2(h2)
	return &http.Client{Transport: &http.Transport{Protocols: p, DisableKeepAlives: true}}
}

// stream is a request whose body and answer are both still open: an SSE stream,
// or what gRPC does.
type stream struct {
	header http.Header
	in     *bufio.Reader
	out    io.WriteCloser
}

func open(t *testing.T, c *http.Client, url string) *stream {
	t.Helper()
	in, out := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), "POST", url, in)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = out.Close(); _ = res.Body.Close() })
	if res.StatusCode != 200 {
		t.Fatalf("%s: %s", url, res.Status)
	}
	return &stream{res.Header, bufio.NewReader(res.Body), out}
}

// hears sends a line and wants it back.
func hears(t *testing.T, in *bufio.Reader, out io.Writer, line string) {
	t.Helper()
	if _, err := fmt.Fprintln(out, line); err != nil {
		t.Fatal(err)
	}
	if got, err := in.ReadString('\n'); err != nil || got != line+"\n" {
		t.Fatalf("sent %q, got %q, %v", line, got, err)
	}
}

func dialWS(t *testing.T, url string) (*fleet.Socket, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, res, err := fleet.DialSocket(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, res.Header.Get("Instance")
}

func chats(t *testing.T, c *fleet.Socket) {
	t.Helper()
	if err := c.Say("hello"); err != nil {
		t.Fatal(err)
	}
	if text, err := c.Hear(); err != nil || text != "hello" {
		t.Fatalf("got %q, %v", text, err)
	}
}

func dialTCP(t *testing.T, a netip.AddrPort) (net.Conn, *bufio.Reader, string) {
	t.Helper()
	c, err := net.Dial("tcp", a.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	in := bufio.NewReader(c)
	name, err := in.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return c, in, strings.TrimSpace(name)
}

// Every kind of connection works, and stays open while all new ones are turned
// to the other colour and the old endpoints drain and go.
func TestRealSwitch(t *testing.T) {
	web, raw := freeAddr(t), freeAddr(t)
	c := edge.Config{
		Listeners: []edge.Listener{{Name: "web", Address: web, AccessLog: edge.AccessLog{File: "/dev/null"}}, {Name: "raw", Address: raw, AccessLog: edge.AccessLog{File: "/dev/null"}}},
		Services: []edge.Service{
			{Name: "chat", Listener: "web", Prefix: "/chat"},
			{Name: "feeds-v2", Listener: "web", Prefix: "/feeds/", HTTP2: true},
			{Name: "line", Listener: "raw", Protocol: edge.TCP},
		},
	}
	blue, green, lineBlue, lineGreen := backend(t, "blue"), backend(t, "green"), echo(t, "blue"), echo(t, "green")
	wishes := func(c discovery.Colour, blues, greens func(...netip.AddrPort) []desired.Endpoint) desired.Wishes {
		both := map[discovery.Colour][]desired.Endpoint{"blue": blues(blue), "green": greens(green)}
		lines := map[discovery.Colour][]desired.Endpoint{"blue": blues(lineBlue), "green": greens(lineGreen)}
		return desired.Wishes{"chat": to(c, both), "feeds-v2": to(c, both), "line": to(c, lines)}
	}
	w := start(t, c, wishes("blue", serving, serving))
	base := web.String()

	ws, on := dialWS(t, "ws://"+base+"/chat/ws")
	sse, grpcish := open(t, client(false), "http://"+base+"/chat/events"), open(t, client(true), "http://"+base+"/feeds/x")
	conn, in, line := dialTCP(t, raw)
	for what, got := range map[string]string{"WebSocket": on, "SSE": sse.header.Get("Instance"), "h2 stream": grpcish.header.Get("Instance"), "TCP": line} {
		if got != "blue" {
			t.Fatalf("%s went to %q", what, got)
		}
	}
	if a, b := sse.header.Get("Asked"), grpcish.header.Get("Asked"); a != "HTTP/1.1 "+base || b != "HTTP/2.0 "+base {
		t.Errorf("instances were asked %q and %q", a, b)
	}
	alive := func() {
		t.Helper()
		chats(t, ws)
		hears(t, sse.in, sse.out, "one")
		hears(t, grpcish.in, grpcish.out, "two")
		hears(t, in, conn, "three")
	}
	alive()
	w.tellAndWait(t, wishes("green", serving, serving), RouteType, ExtensionType)
	if _, got := dialWS(t, "ws://"+base+"/chat/ws"); got != "green" {
		t.Errorf("after the acknowledgement a WebSocket went to %s", got)
	}
	if got := open(t, client(true), "http://"+base+"/feeds/x").header.Get("Instance"); got != "green" {
		t.Errorf("after the acknowledgement an h2 stream went to %s", got)
	}
	if _, _, got := dialTCP(t, raw); got != "green" {
		t.Errorf("after the acknowledgement a TCP connection went to %s", got)
	}
	alive()
	w.tellAndWait(t, wishes("green", draining, serving), EndpointType)
	alive()
	w.tellAndWait(t, wishes("green", func(...netip.AddrPort) []desired.Endpoint { return nil }, serving), EndpointType)
	alive()
	w.tellAndWait(t, wishes("blue", serving, draining), RouteType, ExtensionType, EndpointType)
	alive()
	if _, got := dialWS(t, "ws://"+base+"/chat/ws"); got != "blue" {
		t.Errorf("back again a WebSocket went to %s", got)
	}
	// A service that is retired gets nothing new and keeps what it has.
	gone := maps.Clone(wishes("blue", serving, serving))
	for s, wish := range gone {
		wish.Retired = true
		gone[s] = wish
	}
	w.tellAndWait(t, gone, RouteType)
	for _, path := range []string{"/chat/x", "/chatroom", "/other"} {
		if res, err := client(false).Get("http://" + base + path); err != nil || res.StatusCode != 404 {
			t.Errorf("%s of a retired service: %v, %v", path, res, err)
		}
	}
	alive()
	if n := w.reports.Load(); n > 5 {
		t.Errorf("Envoy asked %d times for load reports that nobody takes", n)
	}
}

// An instance that cannot be connected to costs nobody a connection, also not
// one that is upgraded.
func TestRealRetry(t *testing.T) {
	web, raw := freeAddr(t), freeAddr(t)
	c := edge.Config{
		Listeners: []edge.Listener{{Name: "web", Address: web}, {Name: "raw", Address: raw}},
		Services:  []edge.Service{{Name: "chat", Listener: "web"}, {Name: "line", Listener: "raw", Protocol: edge.TCP}},
	}
	dead := freeAddr(t)
	start(t, c, desired.Wishes{
		"chat": to("blue", map[discovery.Colour][]desired.Endpoint{"blue": serving(dead, backend(t, "blue"))}),
		"line": to("blue", map[discovery.Colour][]desired.Endpoint{"blue": serving(dead, echo(t, "blue"))}),
	})
	for range 20 {
		dialWS(t, "ws://"+web.String()+"/chat/ws")
		open(t, client(false), "http://"+web.String()+"/x")
		dialTCP(t, raw)
	}
}

// Longest prefix first, whole path segments, any port, and never another service.
func TestRealRoutes(t *testing.T) {
	web := freeAddr(t)
	c := edge.Config{Listeners: []edge.Listener{{Name: "web", Address: web}}}
	w := desired.Wishes{}
	for name, s := range map[discovery.Service]edge.Service{
		"all":    {},
		"a":      {Prefix: "/a"},
		"a-b":    {Prefix: "/a/b/"},
		"host":   {Domains: []string{"One.example", "two.example"}},
		"host-a": {Domains: []string{"two.example"}, Prefix: "/a"},
		"suffix": {Domains: []string{"*.example"}},
	} {
		s.Name, s.Listener = name, c.Listeners[0].Name
		c.Services = append(c.Services, s)
		w[name] = to("green", map[discovery.Colour][]desired.Endpoint{"green": serving(backend(t, string(name)))})
	}
	start(t, c, w)
	for url, want := range map[string]string{
		"any/": "all", "any/ab": "all", "any/a": "a", "any/a/": "a", "any/a?x": "a", "any/a/bc": "a", "any/a/b": "a-b", "any/a/b/c": "a-b",
		"one.example/": "host", "one.example:81/a": "host", "TWO.example/x": "host", "two.example:80/a": "host-a", "x.example/a": "suffix",
	} {
		host, path, _ := strings.Cut(url, "/")
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+web.String()+"/"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		res, err := client(false).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if got := res.Header.Get("Instance"); got != want {
			t.Errorf("%s went to %q (%s), want %q", url, got, res.Status, want)
		}
	}
	if got := slices.Sorted(maps.Keys(w)); len(got) != 6 {
		t.Fatal(got)
	}
}
