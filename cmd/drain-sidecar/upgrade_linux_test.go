package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// counted sends a stream of numbered messages of all sizes through an echo, which
// sends each back, and reports the first that is lost, doubled, changed or out of
// order. It ends when enough says so, with how many came back.
func counted(c *fleet.Socket, seed int, enough func() bool) (n int, err error) {
	const ahead = 4 // messages under way
	message := func(n int) string {
		b := bytes.Repeat([]byte{byte('a' + n%26)}, 8+(n*7919+seed*104729)%(20<<10))
		binary.BigEndian.PutUint32(b, uint32(n))
		binary.BigEndian.PutUint32(b[4:], uint32(seed))
		for i := range b[:8] {
			b[i] = '0' + b[i]%64
		}
		return string(b)
	}
	sent := 0
	for {
		for ; sent < n+ahead && !enough(); sent++ {
			if err := c.Say(message(sent)); err != nil {
				return n, fmt.Errorf("message %d: %w", sent, err)
			}
		}
		if n == sent {
			return n, nil
		}
		text, err := c.Hear()
		if err != nil {
			return n, fmt.Errorf("message %d: %w", n, err)
		}
		if text != message(n) {
			return n, fmt.Errorf("message %d came back as another one", n)
		}
		n++
	}
}

func (p *program) upgrade() {
	p.t.Helper()
	var said bytes.Buffer
	if code := run(p.t.Context(), []string{"upgrade", "--token-file", p.token, p.base}, &said, &said); code != 0 {
		p.t.Fatalf("upgrade ended with %d: %s\n%s", code, &said, p.Log())
	}
}

// upgrades has n clients send messages while the sidecar is upgraded again and again,
// and says how many messages came back.
func upgrades(t testing.TB, p *program, n, times int) int64 {
	t.Helper()
	clients := p.connect(n)
	var all sync.WaitGroup
	var over atomic.Bool
	var total atomic.Int64
	for seed, c := range clients {
		all.Go(func() {
			heard, err := counted(c, seed, over.Load)
			if err != nil {
				t.Errorf("client %d: %v", seed, err)
			}
			total.Add(int64(heard))
		})
	}
	for range times {
		p.upgrade()
	}
	over.Store(true)
	all.Wait()
	return total.Load()
}

// The sidecar is upgraded in place: the process stays, and no client notices. Not a
// byte is lost or doubled, not a connection ends; what it knew it knows; its server
// stays its child; a request under way ends, an idle connection goes on.
func TestUpgrade(t *testing.T) {
	p := startTogether(t, "--close", "1000", "--long", "1h")
	slow := p.dial()
	slow.ask("/slow")
	idle := p.dial()
	idle.ask("/")
	idle.hear("")
	p.until("to have the request", func() bool { return p.status().Requests == 1 })
	before := p.status()
	const n = 60
	if total := upgrades(t, p, n, 3); total < n {
		t.Errorf("%d messages came back from %d clients", total, n)
	}
	after := p.status()
	if after.Boot != before.Boot || after.Active != n || after.Accepted != before.Accepted+n || after.Requests != 1 || !after.PeersAgree() {
		t.Errorf("before %+v, after %+v; want the same boot, %d held, no new ones", before, after, n)
	}
	idle.ask("/release")
	idle.hear("")
	slow.hear("at last")
	late := p.connect(1)
	p.Signal(syscall.SIGTERM)
	if _, err := late[0].Hear(); !errors.Is(err, fleet.CloseError(1012)) {
		t.Errorf("a client's connection ended with %v, want close 1012", err)
	}
	p.ends("<nil>")
}

// What cannot take over does not: everything goes on, and the reason is said.
func TestUpgradeThatCannotBe(t *testing.T) {
	itself, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), "drain-sidecar")
	replace := func(content []byte) {
		t.Helper()
		if err := os.WriteFile(binary+".new", content, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(binary+".new", binary); err != nil {
			t.Fatal(err)
		}
	}
	replace(itself)
	t.Setenv("DRAIN_SIDECAR_ITSELF", "1")
	p := startBinary(t, binary, echo(t))
	c := p.connect(1)[0]
	fails := func(want string) {
		t.Helper()
		var said bytes.Buffer
		if code := run(t.Context(), []string{"upgrade", "--token-file", p.token, p.base}, &said, &said); code != 1 || !strings.Contains(said.String(), want) {
			t.Errorf("upgrade ended with %d: %s; want %q", code, &said, want)
		}
		if err := c.Say("still here"); err != nil {
			t.Error(err)
		}
		if text, err := c.Hear(); text != "still here" {
			t.Errorf("the echo is %q, %v", text, err)
		}
	}
	replace([]byte("#!/bin/sh\necho nonsense\n"))
	fails("cannot take over: nonsense")
	replace([]byte("#!/bin/sh\nif [ \"$1\" = takes-over ]; then echo 1; rm -- \"$0\"; fi\n"))
	fails("no such file") // it vanishes before it is begun: everything thaws
	replace(itself)
	if _, err := p.client.Order(t.Context(), p.base, contract.Order{Rollout: "r", Epoch: 1, Step: 1}); err != nil {
		t.Fatal(err)
	}
	fails("an order of rollout")
	if _, err := p.client.Release(t.Context(), p.base, contract.Release{Rollout: "r", Epoch: 1}); err != nil {
		t.Fatal(err)
	}
	p.upgrade()
	if s := p.status(); s.Epoch != 1 || s.Active != 1 {
		t.Errorf("status %+v, want the epoch and the connection of before", s)
	}
}

// BenchmarkUpgrade upgrades a sidecar 3 times under 1,000 clients that send messages
// without pause; one that is lost or doubled fails it.
func BenchmarkUpgrade(b *testing.B) {
	binary := filepath.Join(b.TempDir(), "drain-sidecar")
	build(b, binary)
	srv := http.Server{Handler: http.HandlerFunc(fleet.Echo)}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go func() { _ = srv.Serve(ln) }()
	defer srv.Close()
	for b.Loop() {
		p := startBinary(b, binary, ln.Addr().String())
		b.ReportMetric(float64(upgrades(b, p, 1000, 3)), "messages")
		p.Kill()
	}
}

// byHand is a client that speaks HTTP by hand.
type byHand struct {
	net.Conn
	read *bufio.Reader
	t    testing.TB
}

func (p *program) dial() *byHand {
	p.t.Helper()
	c, err := net.Dial("tcp", p.listen)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = c.Close() })
	return &byHand{c, bufio.NewReader(c), p.t}
}

func (c *byHand) ask(path string) {
	c.t.Helper()
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		c.t.Fatal(err)
	}
}

// hear wants a response 200 with this body.
func (c *byHand) hear(body string) {
	c.t.Helper()
	res, err := http.ReadResponse(c.read, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); res.StatusCode != http.StatusOK || string(b) != body || err != nil {
		c.t.Errorf("the answer is %s %q, %v; want %q", res.Status, b, err, body)
	}
}
