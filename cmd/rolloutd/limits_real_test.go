//go:build real

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
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
	"github.com/sluice-proxy/sluice/examples/fleet"
	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/xds/resource"
)

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
	chat1, err := fleet.StartChat(ctx, fleet.ChatOptions{Bin: programs(t), Dir: s.dir, Name: "chat-1", Colour: discovery.Blue})
	s.must(err)
	t.Cleanup(chat1.Kill)
	s.at[chat] = netip.MustParseAddrPort(chat1.Instance.Address)
	s.at[line] = netip.MustParseAddrPort(startLine(t, "line-1", discovery.Blue).Address)
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
	all := rollout.Wishes{}
	for name, at := range s.at {
		w := rollout.Wish{
			Weights:   map[discovery.Colour]rollout.Share{discovery.Blue: rollout.Whole},
			Endpoints: map[discovery.Colour][]rollout.Endpoint{discovery.Blue: {{ID: "1", Addr: at}}},
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

// told waits until every Envoy has acknowledged everything that it asks for of
// these types.
func (s *stage) told(types ...string) {
	s.t.Helper()
	s.until("acknowledgements", func() error {
		s.pub.refresh()
		for _, p := range s.pub.proxies {
			for _, kind := range types {
				for ref, version := range s.pub.versions {
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
	(&world{t: s.t, ctx: s.ctx}).until(what, missing)
}

// crowd begins to connect WebSockets.
func (s *stage) crowd(n int, again clients.Reconnect) *clients.Swarm {
	s.t.Helper()
	swarm, err := clients.New(clients.Options{Clients: n, URLs: []string{"ws://" + s.web.String() + "/ws"}, Reconnect: again})
	s.must(err)
	ctx, cancel := context.WithCancel(s.ctx)
	var all sync.WaitGroup
	all.Go(func() { _ = swarm.Run(ctx) })
	s.t.Cleanup(func() { cancel(); all.Wait() })
	return swarm
}

func (s *stage) connected(c *clients.Swarm, n int) {
	s.t.Helper()
	s.until(fmt.Sprintf("%d connections", n), func() error {
		if now := c.Connected(); now.Total != n {
			return errors.New(now.String())
		}
		return nil
	})
}

// untouched: none of the clients was ever disconnected, and each connection works.
func (s *stage) untouched(c *clients.Swarm) {
	s.t.Helper()
	for _, r := range c.Records() {
		if r.Kind == clients.Left {
			s.t.Errorf("client %d was disconnected: %d %s", r.Client, r.Code, r.Cause)
		}
	}
	if now := c.Connected(); now.Total == c.Size() {
		s.must(c.Check(s.ctx))
	}
}

// asks is how many of n new raw connections get through; those are closed again.
func (s *stage) asks(n int) (through int) {
	s.t.Helper()
	for range n {
		c, err := net.Dial("tcp", s.raw.String())
		s.must(err)
		_, err = fmt.Fprintln(c, "new")
		if err == nil {
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			_, err = io.ReadFull(c, make([]byte, 1))
		}
		if err == nil {
			through++
		}
		_ = c.Close()
	}
	return through
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

	again := clients.Reconnect{Base: 50 * time.Millisecond, Max: 200 * time.Millisecond}
	herd := s.crowd(140, again)
	s.connected(herd, 42) // ⌈41 / 2⌉ at each
	refused := func() (n int) {
		for _, r := range herd.Records() {
			if r.Kind == clients.Refused {
				if n++; r.Status != 503 {
					t.Fatalf("client %d was refused with %d: %s", r.Client, r.Status, r.Cause)
				}
			}
		}
		return n
	}
	more := func(n int) {
		t.Helper()
		before := refused()
		s.until("more to be refused", func() error {
			if now := herd.Connected().Total; now != n {
				t.Fatalf("%d are connected", now)
			}
			if refused()-before < 200 {
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
	herd := s.crowd(20, clients.Reconnect{})
	s.connected(herd, 20)
	s.untouched(herd)
}
