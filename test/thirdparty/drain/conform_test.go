package drain_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/conform"
)

// Whichever library serves the WebSockets, the gate before it keeps every rule.
func TestEveryLibraryKeepsEveryRule(t *testing.T) {
	for name, lib := range libraries {
		synctest.Test(t, func(t *testing.T) {
			g, n := drain.New(drain.Options{Token: token, TicketKey: "a key of the fleet's"}), network{}
			n.serve(t, "instance:9100", g.Endpoint())
			n.serve(t, "instance:9000", g.Handler(lib.echo))
			passed := 0
			err := conform.Run(t.Context(), conform.Options{URL: "http://instance:9100", Token: token, Connect: "ws://instance:9000/ws", Dial: n.dial}, func(r conform.Result) {
				if r.Verdict != conform.Pass {
					t.Errorf("%s: %s: %s: %s", name, r.Rule, r.Verdict, r.Why)
				}
				passed++
			})
			if err != nil || passed != len(conform.Rules()) {
				t.Errorf("%s: %d rules were tried, %v", name, passed, err)
			}
		})
	}
}

// network is one in memory, so that time can be fake.
type network map[string]listener

type listener struct {
	arrivals chan net.Conn
	closed   chan struct{}
	once     *sync.Once
}

func (n network) listen(addr string) listener {
	n[addr] = listener{arrivals: make(chan net.Conn), closed: make(chan struct{}), once: new(sync.Once)}
	return n[addr]
}

func (n network) dial(_ context.Context, _, addr string) (net.Conn, error) {
	l, ok := n[addr]
	if !ok {
		return nil, syscall.ECONNREFUSED
	}
	here, there := net.Pipe()
	select {
	case l.arrivals <- finConn{there}:
		return here, nil
	case <-l.closed:
		return nil, syscall.ECONNREFUSED
	}
}

func (l listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.arrivals:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l listener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l listener) Addr() net.Addr { return &net.UnixAddr{Name: "memory"} }

// finConn: a pipe knows no half-close, so a FIN is its end.
type finConn struct{ net.Conn }

func (c finConn) CloseWrite() error { return c.Close() }

// RemoteAddr lets the endpoint see a peer on loopback.
func (c finConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4242}
}

// serve serves HTTP at an address of the network until the test ends.
func (n network) serve(t *testing.T, addr string, h http.Handler) {
	l := n.listen(addr)
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
		time.Sleep(2 * time.Second) // the last goodbyes, and what net/http waits after a refused body
	})
}
