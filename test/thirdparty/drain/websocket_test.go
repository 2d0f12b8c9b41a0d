package drain_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

const token = "t"

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

func plain(s *httptest.Server)   { s.Start() }
func withTLS(s *httptest.Server) { s.StartTLS() }

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

func (i *instance) dial(t *testing.T) *websocket.Conn {
	t.Helper()
	c, _, err := websocket.Dial(t.Context(), i.srv.URL, &websocket.DialOptions{HTTPClient: i.srv.Client()})
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(-1)
	t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

// mustBeTold1012 is the only way in which a connection may end.
func mustBeTold1012(t *testing.T, err error) {
	t.Helper()
	e, ok := errors.AsType[websocket.CloseError](err)
	if !ok || e.Code != websocket.StatusServiceRestart || e.Reason != "service restart" {
		t.Errorf("the client's connection ended with %v, want close 1012", err)
	}
}

// library is one way to serve a WebSocket: echo until it ends, or send messages
// of many frames without end.
type library struct{ echo, flood http.HandlerFunc }

var piece = []byte(strings.Repeat("x", 1500))

const pieces = 20

var libraries = map[string]library{
	"coder": {
		echo: func(w http.ResponseWriter, r *http.Request) {
			c, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			defer c.CloseNow()
			for {
				kind, b, err := c.Read(r.Context())
				if err != nil || c.Write(r.Context(), kind, b) != nil {
					return
				}
			}
		},
		flood: func(w http.ResponseWriter, r *http.Request) {
			c, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			defer c.CloseNow()
			ctx := c.CloseRead(r.Context())
			for ctx.Err() == nil {
				m, err := c.Writer(ctx, websocket.MessageText)
				if err != nil {
					return
				}
				for range pieces {
					_, _ = m.Write(piece)
				}
				_ = m.Close()
			}
		},
	},
	"gorilla": {
		echo: func(w http.ResponseWriter, r *http.Request) {
			c, err := (&gorilla.Upgrader{}).Upgrade(w, r, nil)
			if err != nil {
				return
			}
			defer c.Close()
			for {
				kind, b, err := c.ReadMessage()
				if err != nil || c.WriteMessage(kind, b) != nil {
					return
				}
			}
		},
		flood: func(w http.ResponseWriter, r *http.Request) {
			c, err := (&gorilla.Upgrader{WriteBufferSize: 700}).Upgrade(w, r, nil)
			if err != nil {
				return
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for err := error(nil); err == nil; _, _, err = c.ReadMessage() {
				}
			}()
			defer func() { _ = c.Close(); <-ended }()
			for {
				select {
				case <-ended:
					return
				default:
				}
				m, err := c.NextWriter(gorilla.TextMessage)
				if err != nil {
					return
				}
				for range pieces {
					_, _ = m.Write(piece)
				}
				_ = m.Close()
			}
		},
	},
}

func eachLibrary(t *testing.T, test func(*testing.T, library, func(*httptest.Server))) {
	for name, lib := range libraries {
		for kind, how := range map[string]func(*httptest.Server){"plain": plain, "tls": withTLS} {
			t.Run(name+"/"+kind, func(t *testing.T) { test(t, lib, how) })
		}
	}
}

// patient is long enough that a test which needs CloseWait to pass times out.
var patient = drain.Options{CloseWait: time.Minute}

func TestWebSocketIsTold1012(t *testing.T) {
	eachLibrary(t, func(t *testing.T, lib library, how func(*httptest.Server)) {
		i := newInstance(t, patient, how, lib.echo)
		clients := []*websocket.Conn{i.dial(t), i.dial(t), i.dial(t)}
		for _, c := range clients { // answers come, so all three have been switched
			if err := c.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
				t.Fatal(err)
			}
			if _, b, err := c.Read(t.Context()); err != nil || string(b) != "hello" {
				t.Fatalf("echo is %q, %v", b, err)
			}
		}
		if s := i.order(t, 1, 3); s.Active != 3 || s.Accepted != 3 || s.State != contract.Draining {
			t.Fatalf("status %+v, want 3 active", s)
		}
		_, res, err := websocket.Dial(t.Context(), i.srv.URL, &websocket.DialOptions{HTTPClient: i.srv.Client()})
		if err == nil || res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") != "1" {
			t.Fatalf("dial while draining: %v %v, want 503 with Retry-After", res, err)
		}
		i.order(t, 2, 0)
		for _, c := range clients {
			_, _, err := c.Read(t.Context())
			mustBeTold1012(t, err)
		}
		i.emptied(t)
		if s := i.Status(); s.Evicted != 3 || s.Active != 0 || s.State != contract.Drained {
			t.Errorf("status %+v, want 3 evicted", s)
		}
	})
}

// A client that sends without pause sees whole echoes, in order, and then 1012.
func TestWebSocketEvictedWhileItSends(t *testing.T) {
	eachLibrary(t, func(t *testing.T, lib library, how func(*httptest.Server)) {
		i := newInstance(t, patient, how, lib.echo)
		c := i.dial(t)
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for n := 0; ; n++ {
				if c.Write(t.Context(), websocket.MessageText, fmt.Appendf(nil, "%d %s", n, piece)) != nil {
					return
				}
			}
		}()
		for n := 0; ; n++ {
			if n == 200 {
				i.order(t, 1, 0)
			}
			_, b, err := c.Read(t.Context())
			if err != nil {
				mustBeTold1012(t, err)
				break
			}
			if want := fmt.Sprintf("%d %s", n, piece); string(b) != want {
				t.Fatalf("echo %d is broken", n)
			}
		}
		<-sent
		i.emptied(t)
	})
}

// The close frame stands between the frames of a message that is under way.
func TestWebSocketEvictedWithinAMessage(t *testing.T) {
	eachLibrary(t, func(t *testing.T, lib library, how func(*httptest.Server)) {
		for range 5 {
			i := newInstance(t, patient, how, lib.flood)
			c := i.dial(t)
			for n := 0; ; n++ {
				if n == 3 {
					i.order(t, 1, 0)
				}
				_, m, err := c.Reader(t.Context())
				var b []byte
				if err == nil {
					b, err = io.ReadAll(m)
				}
				if err != nil {
					mustBeTold1012(t, err)
					break
				}
				if string(b) != strings.Repeat(string(piece), pieces) {
					t.Fatalf("message %d is broken", n)
				}
			}
			i.emptied(t)
		}
	})
}

// A client that neither reads nor answers is closed when CloseWait has passed,
// although the application is stuck in a write within a frame.
func TestWebSocketThatIsStuck(t *testing.T) {
	eachLibrary(t, func(t *testing.T, lib library, how func(*httptest.Server)) {
		i := newInstance(t, drain.Options{CloseWait: 50 * time.Millisecond}, how, lib.flood)
		c := i.rawUpgrade(t)
		defer c.Close()
		i.emptied(t)
		if s := i.Status(); s.Evicted != 1 {
			t.Errorf("status %+v, want 1 evicted", s)
		}
	})
}

// One that is evicted before the library has taken it over is let through the
// handshake, and told then.
func TestWebSocketEvictedInItsHandshake(t *testing.T) {
	eachLibrary(t, func(t *testing.T, lib library, how func(*httptest.Server)) {
		arrived, goOn := make(chan struct{}), make(chan struct{})
		i := newInstance(t, patient, how, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(arrived)
			<-goOn
			if r.Context().Err() != nil {
				t.Error("the context of the handshake was cancelled")
			}
			lib.echo(w, r)
		}))
		go func() {
			<-arrived
			i.order(t, 1, 0)
			for i.Status().Evicted == 0 && t.Context().Err() == nil {
				time.Sleep(time.Millisecond)
			}
			close(goOn)
		}()
		_, _, err := i.dial(t).Read(t.Context())
		mustBeTold1012(t, err)
		i.emptied(t)
	})
}

// rawUpgrade sends the request of an upgrade and reads nothing.
func (i *instance) rawUpgrade(t *testing.T) net.Conn {
	t.Helper()
	var c net.Conn
	c, err := net.Dial("tcp", i.srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if i.srv.TLS != nil {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
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
