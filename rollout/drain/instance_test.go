package drain_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

const token = "t"

// patient is long enough that a test which needs CloseWait to pass times out.
var patient = drain.Options{CloseWait: time.Minute}

// instance is a gate before a real server, with its endpoint.
type instance struct {
	*drain.Gate
	srv    *httptest.Server
	client *contract.Client
	base   string
}

func newInstance(t *testing.T, opt drain.Options, how func(*httptest.Server), app http.Handler) *instance {
	t.Helper()
	opt.Token = token
	g := drain.New(opt)
	i := &instance{Gate: g, srv: httptest.NewUnstartedServer(g.Handler(app)), client: contract.NewClient(token)}
	how(i.srv)
	endpoint := httptest.NewServer(g.Endpoint())
	i.base = endpoint.URL
	t.Cleanup(func() {
		i.client.Close()
		endpoint.Close()
		i.srv.CloseClientConnections()
		i.srv.Close()
	})
	return i
}

func plain(s *httptest.Server) { s.Start() }
func http2(s *httptest.Server) { s.EnableHTTP2 = true; s.StartTLS() }

func (i *instance) order(t *testing.T, step uint64, ceiling int) contract.Status {
	t.Helper()
	s, err := i.client.Order(t.Context(), i.base, contract.Order{Rollout: "r", Epoch: 1, Step: step, Ceiling: &ceiling})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// emptied waits until nothing is held and every goodbye is over.
func (i *instance) emptied(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := i.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
}

// rawUpgrade sends the request of an upgrade and reads nothing.
func (i *instance) rawUpgrade(t *testing.T, protocol string) net.Conn {
	t.Helper()
	var c net.Conn
	c, err := net.Dial("tcp", i.srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if i.srv.TLS != nil {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	_, err = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: %s\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", protocol)
	if err != nil {
		t.Fatal(err)
	}
	for i.Status().Active == 0 {
		if t.Context().Err() != nil {
			t.Fatal("the connection was never admitted")
		}
		time.Sleep(time.Millisecond)
	}
	return c
}
