package drain_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge"
	"github.com/coder/websocket"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	gorilla "github.com/gorilla/websocket"
	"github.com/olahol/melody"
	xwebsocket "golang.org/x/net/websocket"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// The obvious code of each library; what its client says first, and hears.
func webSocketServers(t *testing.T) map[string]struct {
	server   http.Handler
	say, has string
} {
	type row = struct {
		server   http.Handler
		say, has string
	}
	sockets := melody.New()
	sockets.HandleMessage(func(s *melody.Session, b []byte) { _ = s.Write(b) })
	t.Cleanup(func() { _ = sockets.Close() })

	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		t.Fatal(err)
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{Credentials: &centrifuge.Credentials{UserID: "u"}}, nil
	})
	if err := node.Run(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = node.Shutdown(context.Background()) })

	behind := newInstance(t, drain.Options{}, plain, libraries["gorilla"].echo)
	to, err := url.Parse(behind.srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]row{
		"gorilla": {libraries["gorilla"].echo, "hello", "hello"},
		"coder":   {libraries["coder"].echo, "hello", "hello"},
		"x/net/websocket": {xwebsocket.Server{Handler: func(c *xwebsocket.Conn) {
			for {
				var b string
				if xwebsocket.Message.Receive(c, &b) != nil || xwebsocket.Message.Send(c, b) != nil {
					return
				}
			}
		}}, "hello", "hello"},
		"gobwas": {http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, _, _, err := ws.UpgradeHTTP(r, w)
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for {
					b, kind, err := wsutil.ReadClientData(c)
					if err != nil || wsutil.WriteServerMessage(c, kind, b) != nil {
						return
					}
				}
			}()
		}), "hello", "hello"},
		"melody": {http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _ = sockets.HandleRequest(w, r) }), "hello", "hello"},
		"centrifuge": {centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{}), `{"id":1,"connect":{}}`,
			"connect"},
		"httputil.ReverseProxy": {httputil.NewSingleHostReverseProxy(to), "hello", "hello"},
	}
}

// Whichever library serves them, clients are told 1012 when they are let go, and nobody is
// counted who has left.
func TestEveryWebSocketLibrary(t *testing.T) {
	for name, lib := range webSocketServers(t) {
		t.Run(name, func(t *testing.T) {
			i := newInstance(t, patient, plain, lib.server)
			answers := i.greet(t, lib.say)
			leaves := i.greet(t, lib.say)
			told := i.greet(t, lib.say)
			if s := i.Status(); s.Active != 3 || s.Accepted != 3 {
				t.Errorf("%+v, want 3 active", s)
			}
			_ = leaves.CloseNow()
			for i.Status().Active != 2 && t.Context().Err() == nil {
				time.Sleep(time.Millisecond)
			}
			i.order(t, 1, 0)
			for _, c := range []*websocket.Conn{answers, told} {
				_, _, err := c.Read(t.Context())
				mustBeTold1012(t, err)
			}
			i.emptied(t)
			if s := i.Status(); s.Evicted != 2 || s.State != contract.Drained {
				t.Errorf("%+v, want 2 evicted", s)
			}
		})
	}
}

// greet connects, and waits for the server's answer.
func (i *instance) greet(t *testing.T, say string) *websocket.Conn {
	t.Helper()
	c := i.dial(t)
	if err := c.Write(t.Context(), websocket.MessageText, []byte(say)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// A handler that only writes, as feeds do, hears that its client was let go, even if the
// client never answers.
func TestAFeedHearsThatItsClientWasLetGo(t *testing.T) {
	ended := make(chan error, 1)
	feeds := map[string]http.HandlerFunc{
		"gorilla": func(w http.ResponseWriter, r *http.Request) {
			c, err := (&gorilla.Upgrader{}).Upgrade(w, r, nil)
			if err != nil {
				return
			}
			defer c.Close()
			for err == nil {
				err = c.WriteMessage(gorilla.TextMessage, []byte("tick"))
			}
			ended <- err
		},
		"coder": func(w http.ResponseWriter, r *http.Request) {
			c, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			defer c.CloseNow()
			for err == nil {
				err = c.Write(r.Context(), websocket.MessageText, []byte("tick"))
			}
			ended <- err
		},
		"gobwas": func(w http.ResponseWriter, r *http.Request) {
			c, _, _, err := ws.UpgradeHTTP(r, w)
			if err != nil {
				return
			}
			defer c.Close()
			for err == nil {
				err = wsutil.WriteServerText(c, []byte("tick"))
			}
			ended <- err
		},
	}
	for name, feed := range feeds {
		t.Run(name, func(t *testing.T) {
			i := newInstance(t, patient, plain, feed)
			c := i.dial(t)
			i.order(t, 1, 0)
			var err error
			for err == nil {
				_, _, err = c.Read(t.Context())
			}
			mustBeTold1012(t, err)
			if err := <-ended; !errors.Is(err, drain.ErrEvicted) {
				t.Errorf("the handler ended with %v, want ErrEvicted", err)
			}
			i.emptied(t)
		})
	}
}

// The close frame's code and text are the author's.
func TestCloseCode(t *testing.T) {
	opt := patient
	opt.CloseCode, opt.CloseReason = 1001, "moving"
	i := newInstance(t, opt, plain, libraries["gorilla"].echo)
	c := i.greet(t, "hello")
	i.order(t, 1, 0)
	_, _, err := c.Read(t.Context())
	if e, ok := errors.AsType[websocket.CloseError](err); !ok || e.Code != websocket.StatusGoingAway || e.Reason != "moving" {
		t.Errorf("told %v, want 1001", err)
	}
	i.emptied(t)
}
