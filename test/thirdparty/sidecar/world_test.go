package sidecar_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/sidecar"
)

const (
	upgrade = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	goodbye = "\x88\x11\x03\xf4service restart"
)

// world is a sidecar before a real server, all on loopback.
type world struct {
	*sidecar.Sidecar
	t      testing.TB
	addr   string // where clients connect
	base   string // of the drain endpoint
	client *contract.Client
}

// patient is long enough that a test which needs CloseWait to pass times out.
const patient = time.Minute

func newWorld(t testing.TB, opt sidecar.Options) *world {
	t.Helper()
	if opt.CloseWait == 0 {
		opt.CloseWait = patient
	}
	s, err := sidecar.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	ln := listen(t)
	w := &world{Sidecar: s, t: t, addr: ln.Addr().String(), client: contract.NewClient(opt.Token)}
	endpoint := httptest.NewServer(s.Endpoint())
	w.base = endpoint.URL
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.Serve(ctx, ln); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		w.client.Close()
		endpoint.Close()
		cancel()
		serving.Wait()
	})
	return w
}

func listen(t testing.TB) *net.TCPListener {
	t.Helper()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

// peer is one end of a connection, whose every step has to succeed.
type peer struct {
	*net.TCPConn
	r *bufio.Reader
	t testing.TB
}

func newPeer(t testing.TB, c *net.TCPConn) *peer {
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return &peer{TCPConn: c, r: bufio.NewReader(c), t: t}
}

func (w *world) dial() *peer {
	w.t.Helper()
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return newPeer(w.t, c.(*net.TCPConn))
}

func (p *peer) say(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p, text); err != nil {
		p.t.Errorf("saying %.20q: %v", text, err)
	}
}

// hear wants exactly text next.
func (p *peer) hear(text string) {
	p.t.Helper()
	b := make([]byte, len(text))
	if n, err := io.ReadFull(p.r, b); string(b[:n]) != text {
		p.t.Errorf("heard %q, %v; want %q", b[:n], err, text)
	}
}

// hearEnd wants a FIN next, and no reset.
func (p *peer) hearEnd() {
	p.t.Helper()
	if rest, err := io.ReadAll(p.r); err != nil || len(rest) > 0 {
		p.t.Errorf("heard %q, %v; want the end", rest, err)
	}
}

func (w *world) order(step uint64, ceiling int) contract.Status {
	w.t.Helper()
	s, err := w.client.Order(w.t.Context(), w.base, contract.Order{Rollout: "r", Epoch: 1, Step: step, Ceiling: &ceiling})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// until polls until done holds.
func (w *world) until(what string, done func() bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	for !done() {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			w.t.Fatalf("never: %s; status %+v", what, w.Status())
		}
	}
}

func (w *world) holds(n int) {
	w.t.Helper()
	w.until("the right number of connections", func() bool { return w.Status().Active == n })
}

// emptied waits until nothing is held and every goodbye is over.
func (w *world) emptied() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	if err := w.Shutdown(ctx); err != nil {
		w.t.Fatal(err)
	}
}

// response reads one response to a GET.
func (p *peer) response() (*http.Response, string) {
	p.t.Helper()
	res, err := http.ReadResponse(p.r, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return res, strings.TrimSpace(string(b))
}
