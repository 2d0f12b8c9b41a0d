package sidecar_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/sidecar"
)

// newApp is a sidecar before an HTTP server with the app; the errors come as its
// connections end.
func newApp(t *testing.T, a app, opt sidecar.Options) (*world, <-chan error) {
	ended := make(chan error, 100)
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "fine") })
	mux.HandleFunc("/flood", func(w http.ResponseWriter, r *http.Request) { ended <- a.flood(w, r) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { ended <- a.echo(w, r) })
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	opt.To = srv.Listener.Addr().String()
	w := newWorld(t, opt)
	return w, ended
}

func eachPair(t *testing.T, test func(*testing.T, app, dialer)) {
	for server, a := range apps {
		for client, dial := range clients {
			t.Run(server+" server, "+client+" client", func(t *testing.T) { test(t, a, dial) })
		}
	}
}

// Under full load, in the midst of messages in large fragments, the clients see
// whole messages only and then 1012, and so do their servers.
func TestEvictedUnderFullLoad(t *testing.T) {
	eachPair(t, func(t *testing.T, a app, dial dialer) {
		const n = 6
		w, ended := newApp(t, a, sidecar.Options{})
		results := make(chan error, n)
		for range n {
			client := dial(t, "http://"+w.addr+"/flood")
			go func() {
				for {
					text, err := client.read()
					if err != nil {
						results <- err
						return
					}
					if text != message {
						t.Errorf("a message of %d bytes is broken", len(text))
					}
				}
			}()
		}
		w.holds(n)
		w.order(1, n/2)
		w.holds(n / 2)
		w.order(2, 0)
		for range n {
			if err := <-results; closeCode(err) != 1012 {
				t.Errorf("a client's connection ended with %v, want close 1012", err)
			}
			if err := <-ended; closeCode(err) != 1001 {
				t.Errorf("the server's side ended with %v, want close 1001, and no answer to a close that it has not sent", err)
			}
		}
		w.emptied()
	})
}

// What a client says until it is told still arrives, in order.
func TestEvictedWhileIdle(t *testing.T) {
	eachPair(t, func(t *testing.T, a app, dial dialer) {
		w, ended := newApp(t, a, sidecar.Options{Mode: sidecar.WebSocket})
		client := dial(t, "http://"+w.addr)
		if err := client.write("hello"); err != nil {
			t.Fatal(err)
		}
		if text, err := client.read(); text != "hello" || err != nil {
			t.Fatalf("the echo is %q, %v", text, err)
		}
		if s := w.Status(); s.HandshakeMS == nil {
			t.Errorf("status %+v, want the handshake's time", s)
		}
		w.order(1, 0)
		if _, err := client.read(); closeCode(err) != 1012 {
			t.Errorf("the client's connection ended with %v, want close 1012", err)
		}
		if err := <-ended; closeCode(err) != 1001 {
			t.Errorf("the server's side ended with %v, want close 1001", err)
		}
		w.emptied()
	})
}

// A client that does not answer the goodbye is left when CloseWait has passed,
// and its server is told by a close frame.
func TestWebSocketClientThatDoesNotAnswer(t *testing.T) {
	for name, a := range apps {
		w, ended := newApp(t, a, sidecar.Options{Options: drain.Options{CloseWait: 50 * time.Millisecond}})
		c := w.dial()
		c.say(upgrade)
		if res, err := http.ReadResponse(c.r, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("the handshake is answered %v, %v", res, err)
		}
		w.order(1, 0)
		c.hear(goodbye)
		if err := <-ended; closeCode(err) != 1001 {
			t.Errorf("%s: the server's side ended with %v, want close 1001", name, err)
		}
		c.hearEnd()
		w.emptied()
	}
}

// Requests that are no upgrade pass, and a WebSocket may follow them on the same
// connection.
func TestRequestsBeforeAWebSocket(t *testing.T) {
	w, _ := newApp(t, apps["gorilla"], sidecar.Options{Mode: sidecar.WebSocket})
	c := w.dial()
	for range 3 {
		c.say("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
		if res, body := c.response(); res.StatusCode != http.StatusOK || body != "fine" || res.Close {
			t.Fatalf("the answer is %s %q, closing: %t", res.Status, body, res.Close)
		}
	}
	c.say(upgrade)
	if res, err := http.ReadResponse(c.r, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("the handshake is answered %v, %v", res, err)
	}
	w.order(1, 0)
	c.hear(goodbye)
	c.say("\x88\x80abcd")
	c.hearEnd()
	_ = c.CloseWrite()
	w.emptied()
}
