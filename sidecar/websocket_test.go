package sidecar_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
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
			if err := <-ended; closeCode(err) != 1012 {
				t.Errorf("the server's side ended with %v, want its client's close 1012", err)
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
		if err := <-ended; closeCode(err) != 1012 {
			t.Errorf("the server's side ended with %v, want its client's close 1012", err)
		}
		w.emptied()
	})
}

// What passes in either direction counts as activity, for the order "idlest".
func TestTheIdlestGoesFirst(t *testing.T) {
	w := newWorld(t, sidecar.Options{To: server(t, greeter)})
	busy, idle := w.dial(), w.dial() // the busy one is older, so it would go first of equals
	busy.hear("hello\n")
	idle.hear("hello\n")
	for begin := time.Now(); time.Since(begin) < 1100*time.Millisecond; { // activity is noted to the second
		busy.say("x\n")
		busy.hear("you said x\n")
	}
	if _, err := w.client.Order(t.Context(), w.base, drain.Order{Rollout: "r", Epoch: 1, Step: 1, Ceiling: new(1), Pick: drain.Idlest}); err != nil {
		t.Fatal(err)
	}
	idle.hearEnd()
	busy.say("x\n")
	busy.hear("you said x\n")
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

// One that is evicted in its handshake is let through it, and told then; one that
// is evicted within a frame is told behind it or behind a later one.
func TestEvictedInTheMidst(t *testing.T) {
	parts := []string{switching, "\x01\x0bhello there", "\x89\x00", "\x80\x01!"}
	all := strings.Join(parts, "")
	for cut := range len(all) {
		reached, goOn := make(chan struct{}), make(chan struct{})
		w := newWorld(t, sidecar.Options{To: server(t, func(p *peer) {
			p.hear(upgrade)
			p.say(all[:cut])
			close(reached)
			<-goOn
			p.say(all[cut:])
			p.hear("\x88\x80abcd")
		})})
		c := w.dial()
		c.say(upgrade)
		<-reached
		c.hear(all[:cut])
		w.order(1, 0)
		w.until("evicted", func() bool { return w.Status().Evicted == 1 })
		close(goOn)
		heard := all[:cut]
		for !strings.HasSuffix(heard, goodbye) {
			b, err := c.r.ReadByte()
			if err != nil {
				t.Fatalf("evicted after %d bytes, heard %q, %v", cut, heard, err)
			}
			heard += string([]byte{b})
		}
		said := strings.TrimSuffix(heard, goodbye)
		between := false
		for n := range parts {
			between = between || said == strings.Join(parts[:n+1], "")
		}
		if !between {
			t.Errorf("evicted after %d bytes, heard %q, where the goodbye is not between two frames", cut, heard)
		}
		c.say("\x88\x80abcd")
		c.hearEnd()
		_ = c.Close()
		w.emptied()
	}
}

// What is no handshake or no frame passes unchanged, and is TCP from then on.
func TestIllegalBytesPass(t *testing.T) {
	for name, said := range map[string]string{
		"a truncated answer":    switching[:60],
		"no answer":             "\x00\x01\x02",
		"a refusal":             "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
		"an unknown opcode":     switching + "\x85\x00",
		"a masked server":       switching + "\x81\x80abcd",
		"a fragmented control":  switching + "\x09\x00",
		"a length without need": switching + "\x81\x7e\x00\x01x",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sidecar.Options{Options: drain.Options{CloseWait: 50 * time.Millisecond}, To: server(t, func(p *peer) {
				p.hear(upgrade)
				p.say(said)
				p.hear("\x01\x02") // no masked frame
				p.say("heard")
				_ = p.hearAll()
			}), Mode: sidecar.WebSocket})
			c := w.dial()
			c.say(upgrade)
			c.hear(said)
			c.say("\x01\x02")
			c.hear("heard")
			w.order(1, 0)
			c.hearEnd()
			w.emptied()
		})
	}
}

// A server that has begun to close is not interrupted; after the client's close
// comes the FIN, even if the server has not gone yet.
func TestNoSecondCloseFrame(t *testing.T) {
	w := newWorld(t, sidecar.Options{To: server(t, func(p *peer) {
		p.hear(upgrade)
		p.say(switching + "\x88\x02\x03\xe8")
		p.hear("\x88\x82abcdxx")
		p.hearEnd()
	})})
	c := w.dial()
	c.say(upgrade)
	c.hear(switching + "\x88\x02\x03\xe8")
	w.order(1, 0)
	w.until("evicted", func() bool { return w.Status().Evicted == 1 })
	c.say("\x88\x82abcdxx")
	c.hearEnd()
	_ = c.CloseWrite()
	w.emptied()
}

// So it does for a client that has begun to close, whose server does not answer.
func TestEvictedAfterTheClientsClose(t *testing.T) {
	heard := make(chan struct{})
	w := newWorld(t, sidecar.Options{To: server(t, func(p *peer) {
		p.hear(upgrade)
		p.say(switching)
		p.hear("\x88\x82abcdxx")
		close(heard)
		p.hearEnd()
	})})
	c := w.dial()
	c.say(upgrade)
	c.hear(switching)
	c.say("\x88\x82abcdxx")
	<-heard
	w.order(1, 0)
	c.hear(goodbye)
	c.hearEnd()
	_ = c.CloseWrite()
	w.emptied()
}

// The end of Serve ends everything at once.
func TestServeEnds(t *testing.T) {
	s, err := sidecar.New(sidecar.Options{To: server(t, greeter)})
	if err != nil {
		t.Fatal(err)
	}
	ln := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, ln) }()
	c := (&world{t: t, addr: ln.Addr().String()}).dial()
	c.hear("hello\n")
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Serve returned %v", err)
	}
	c.hearEnd()
}
