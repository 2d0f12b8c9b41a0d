//go:build real

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/cmd/internal/config"
	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/units"
	"github.com/sluice-proxy/sluice/test/fleet"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// The two services of every stage: one for WebSockets, one for raw TCP.
const (
	chat discovery.Service = "chat"
	line discovery.Service = "line"
)

// patience is how long a test waits for anything.
const patience = time.Minute

// startChat is an instance of a service for WebSockets, which echo, and requests.
func startChat(t *testing.T) netip.AddrPort {
	mux := http.NewServeMux()
	mux.HandleFunc("/ws", fleet.Echo)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") })
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().(*net.TCPAddr).AddrPort()
}

// startLine is an instance of a raw TCP service, which hears a line, says hello
// and then again what it hears.
func startLine(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				if _, err := in.ReadString('\n'); err == nil {
					_, _ = io.WriteString(conn, "hello\n")
					_, _ = io.Copy(conn, in)
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// stage is the way from wishes to real Envoys with nobody who decides: the
// wishes are the test's own. It serves chat and line, all new connections go to
// one instance of each.
type stage struct {
	t        *testing.T
	ctx      context.Context
	dir      string
	pub      *publisher
	xds      netip.AddrPort
	web, raw netip.AddrPort
	at       map[discovery.Service]netip.AddrPort
}

func newStage(t *testing.T) *stage {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	s := &stage{t: t, ctx: ctx, dir: t.TempDir(), at: map[discovery.Service]netip.AddrPort{}}
	s.at[chat], s.at[line] = startChat(t), startLine(t)
	var err error
	s.web, err = fleet.FreeAddr()
	s.must(err)
	s.raw, err = fleet.FreeAddr()
	s.must(err)
	s.pub = newPublisher(s.config(""), slog.New(slog.DiscardHandler))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	s.must(err)
	s.xds = l.Addr().(*net.TCPAddr).AddrPort()
	serving, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { _ = serveXDS(serving, s.pub, l) })
	t.Cleanup(func() { stop(); all.Wait() })
	return s
}

func (s *stage) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// config is one in which both services have more, such as ", storm_guard: 5/s".
func (s *stage) config(more string) *config.Config {
	s.t.Helper()
	file := filepath.Join(s.dir, "sluice.yaml")
	s.must(os.WriteFile(file, fmt.Appendf(nil, `discovery: {file: instances.yaml}
listeners:
  - {name: web, address: %s}
  - {name: raw, address: %s}
services:
  - {name: chat, listener: web%s}
  - {name: line, listener: raw, protocol: tcp%[3]s}
`, s.web, s.raw, more), 0o644))
	c, err := config.Load(file)
	s.must(err)
	return c
}

// wish publishes a limit (0 is none) for the colour that all connections go to,
// shared by so many proxies.
func (s *stage) wish(limit, proxies int) {
	s.t.Helper()
	all := desired.Wishes{}
	for name, at := range s.at {
		w := desired.Wish{
			Weights:   map[discovery.Colour]units.Share{discovery.Blue: units.Whole},
			Endpoints: map[discovery.Colour][]desired.Endpoint{discovery.Blue: {{ID: "1", Addr: at}}},
			Proxies:   proxies,
		}
		if limit > 0 {
			w.Limits = map[discovery.Colour]int{discovery.Blue: limit}
		}
		all[name] = w
	}
	if refused := s.pub.Publish(all); len(refused) > 0 {
		s.t.Fatal(refused)
	}
}

// edge starts an Envoy on the bootstrap that is written for it, changed by edit.
func (s *stage) edge(node string, edit func(string) string) {
	s.t.Helper()
	p, admin, err := fleet.StartEnvoy(s.ctx, fleet.EnvoyOptions{Node: node, XDS: s.xds, Dir: s.dir, Concurrency: 2, Edit: edit})
	s.must(err)
	s.t.Cleanup(func() {
		p.Kill()
		if s.t.Failed() {
			s.t.Logf("%s said:\n%s", node, p.Log())
		}
	})
	s.must(p.Await(s.ctx, fleet.Accepts(admin, s.web)))
	s.must(p.Await(s.ctx, fleet.Accepts(admin, s.raw)))
}

// told waits until every Envoy has acknowledged everything of these types; of the two kinds of
// doors each asks for its own.
func (s *stage) told(types ...string) {
	s.t.Helper()
	s.until("acknowledgements", func() error {
		s.pub.refresh()
		for _, p := range s.pub.proxies {
			for _, kind := range types {
				for ref, version := range s.pub.server.Versions() {
					if strings.Contains(ref.Name, "/door") && !p.Wants(ref) {
						continue
					}
					if ref.Type == kind && !p.Holds(map[resource.Ref]string{ref: version}) {
						return fmt.Errorf("%s does not hold %s", p.Node, ref)
					}
				}
			}
			if p.NackCount > 0 {
				s.t.Fatalf("%s refused %v", p.Node, p.Nacks)
			}
		}
		return nil
	})
}

func (s *stage) until(what string, missing func() error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	for {
		err := missing()
		if err == nil {
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			s.t.Fatalf("waiting for %s: %v", what, err)
		}
	}
}

// herd begins to connect WebSockets; see newHerd.
func (s *stage) herd(n int, base, most time.Duration) *herd {
	h := newHerd(n, "ws://"+s.web.String()+"/ws", base, most)
	ctx, cancel := context.WithCancel(s.ctx)
	var all sync.WaitGroup
	all.Go(func() { h.run(ctx) })
	s.t.Cleanup(func() { cancel(); all.Wait() })
	return h
}

func (s *stage) connected(h *herd, n int) {
	s.t.Helper()
	s.until(fmt.Sprintf("%d connections", n), func() error {
		if now := len(h.connected()); now != n {
			return fmt.Errorf("%d are connected", now)
		}
		return nil
	})
}

// untouched: none of the clients was ever disconnected, and if all are connected
// each connection works.
func (s *stage) untouched(h *herd) {
	s.t.Helper()
	for _, e := range h.all() {
		if e.kind == left {
			s.t.Errorf("a client was disconnected: %s", e.cause)
		}
	}
	if len(h.connected()) == len(h.conns) {
		s.until("every WebSocket to echo", h.ask())
	}
}

// TestRealHerd: two Envoys share a limit, hold to it when a herd comes, drop
// nobody when it falls below what is held, and share it anew when there is only
// one of them that counts.
func TestRealHerd(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.wish(41, 2)
	s.edge("edge-1", nil)
	s.edge("edge-2", nil)
	s.told(envoy.RuntimeType, envoy.RouteType, envoy.EndpointType)

	herd := s.herd(140, 50*time.Millisecond, 200*time.Millisecond)
	s.connected(herd, 42) // ⌈41 / 2⌉ at each
	refusals := func() (n int) {
		for _, e := range herd.all() {
			if e.kind == refused {
				if n++; e.status != 503 {
					t.Fatalf("a client was refused with %d: %s", e.status, e.cause)
				}
			}
		}
		return n
	}
	more := func(n int) {
		t.Helper()
		before := refusals()
		s.until("more to be refused", func() error {
			if now := len(herd.connected()); now != n {
				t.Fatalf("%d are connected", now)
			}
			if refusals()-before < 200 {
				return errors.New("not yet")
			}
			return nil
		})
	}
	more(42)
	s.wish(10, 2)
	s.told(envoy.RuntimeType)
	more(42)
	s.untouched(herd)
	s.wish(60, 1)
	s.told(envoy.RuntimeType)
	s.connected(herd, 120)
	more(120)
	s.wish(0, 1)
	s.told(envoy.RuntimeType)
	s.connected(herd, 140)
	s.untouched(herd)
	// What TCP does at its limit: closed at once.
	s.wish(1, 2)
	s.told(envoy.RuntimeType)
	var held []net.Conn
	s.until("raw connections to be closed", func() error {
		c, err := net.Dial("tcp", s.raw.String())
		s.must(err)
		held = append(held, c)
		t.Cleanup(func() { _ = c.Close() })
		if _, err := fmt.Fprintln(c, "new"); err == nil {
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err = io.ReadFull(c, make([]byte, 1)); err == nil {
				return fmt.Errorf("%d got through", len(held))
			}
		}
		return nil
	})
	s.untouched(herd)
}

// TestRealOlderBootstrap: an Envoy that was started before there were limits
// does all else and is waited for by nobody.
func TestRealOlderBootstrap(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.wish(3, 1)
	s.edge("edge-old", func(text string) string {
		from := strings.Index(text, "  # How many connections this Envoy admits")
		to := strings.Index(text, "  - name: admin\n")
		if from < 0 || to < from {
			t.Fatalf("the bootstrap has no runtime layer of ours:\n%s", text)
		}
		return text[:from] + text[to:]
	})
	s.told(envoy.RouteType, envoy.EndpointType, envoy.ExtensionType)
	for name := range s.at {
		if seen := s.pub.Proxies(name); len(seen) != 1 || !seen[0].Confirmed {
			t.Errorf("%s: %+v", name, seen)
		}
	}
	herd := s.herd(20, 0, 0)
	s.connected(herd, 20)
	s.untouched(herd)
}
