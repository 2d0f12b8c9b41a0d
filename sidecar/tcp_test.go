package sidecar_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/sidecar"
)

// greeter speaks first, answers each line, and says bye when the client ends.
func greeter(p *peer) {
	p.say("hello\n")
	for {
		line, err := p.r.ReadString('\n')
		if err != nil {
			_, _ = io.WriteString(p, "bye\n")
			return
		}
		p.say("you said " + line)
	}
}

func eachMode(t *testing.T, test func(*testing.T, sidecar.Mode)) {
	for _, mode := range []sidecar.Mode{sidecar.TCP, sidecar.Auto, sidecar.WebSocket} {
		t.Run(string(mode), func(t *testing.T) { test(t, mode) })
	}
}

func TestHalfClosesPass(t *testing.T) {
	eachMode(t, func(t *testing.T, mode sidecar.Mode) {
		w := newWorld(t, sidecar.Options{To: server(t, greeter), Mode: mode})
		c := w.dial()
		c.hear("hello\n")
		c.say("x\n")
		c.hear("you said x\n")
		_ = c.CloseWrite()
		c.hear("bye\n")
		c.hearEnd()
		w.holds(0)
		if s := w.Status(); s.Accepted != 1 || s.Evicted != 0 || s.Returned != nil {
			t.Errorf("status %+v, want 1 accepted, none evicted, returned unknown", s)
		}
	})
	t.Run("the server's", func(t *testing.T) {
		got := make(chan string, 1)
		w := newWorld(t, sidecar.Options{To: server(t, func(p *peer) {
			_ = p.CloseWrite()
			got <- p.hearAll()
		})})
		c := w.dial()
		c.hearEnd()
		c.say("still here")
		_ = c.CloseWrite()
		if text := <-got; text != "still here" {
			t.Errorf("the server heard %q behind its FIN", text)
		}
	})
}

// An evicted TCP client gets a FIN; what it says until it has seen that still
// reaches the server.
func TestTCPIsLetGoWithAFIN(t *testing.T) {
	eachMode(t, func(t *testing.T, mode sidecar.Mode) {
		got := make(chan string, 1)
		w := newWorld(t, sidecar.Options{To: server(t, func(p *peer) {
			p.say("hello\n")
			got <- p.hearAll()
			p.say("too late\n")
		}), Mode: mode})
		c := w.dial()
		c.hear("hello\n")
		w.order(1, 0)
		c.hearEnd()
		c.say("last words")
		_ = c.CloseWrite()
		if text := <-got; text != "last words" {
			t.Errorf("the server heard %q", text)
		}
		w.emptied()
		if s := w.Status(); s.Evicted != 1 || s.State != contract.Drained {
			t.Errorf("status %+v, want 1 evicted", s)
		}
	})
}

// One that does not go is ended when CloseWait has passed, and the server hears
// of it.
func TestTCPClientThatDoesNotGo(t *testing.T) {
	ended := make(chan string, 1)
	w := newWorld(t, sidecar.Options{Options: drain.Options{CloseWait: 50 * time.Millisecond}, To: server(t, func(p *peer) {
		p.say("hello\n")
		ended <- p.hearAll()
	})})
	c := w.dial()
	c.hear("hello\n")
	w.order(1, 0)
	<-ended
	w.emptied()
}

func TestAClientThatIsGoneEndsTheServersSide(t *testing.T) {
	ended := make(chan struct{})
	w := newWorld(t, sidecar.Options{Options: drain.Options{CloseWait: 50 * time.Millisecond}, To: server(t, func(p *peer) {
		defer close(ended)
		for { // it never reads, and speaks until it cannot
			if _, err := p.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	})})
	c := w.dial()
	c.hear("\x00")
	_ = c.SetLinger(0) // a reset
	_ = c.Close()
	<-ended
	w.holds(0)
}

func TestAServerThatIsGoneEndsTheClientsSide(t *testing.T) {
	w := newWorld(t, sidecar.Options{To: server(t, func(p *peer) {
		p.hear("x")
		_ = p.SetLinger(0)
	})})
	c := w.dial()
	c.say("x")
	if b, err := io.ReadAll(c); len(b) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("heard %q, %v; want the end", b, err)
	}
	w.holds(0)
}

// Peers that never read hold up nothing beyond CloseWait.
func TestPeersThatNeverRead(t *testing.T) {
	flood := func(c net.Conn, ended chan<- struct{}) {
		for err := error(nil); err == nil; _, err = c.Write(make([]byte, 1<<16)) {
		}
		ended <- struct{}{}
	}
	for name, serverFloods := range map[string]bool{"neither side": true, "only the client": false} {
		eachMode(t, func(t *testing.T, mode sidecar.Mode) {
			const soon = 10 * time.Second // before the peers themselves give up
			ended := make(chan struct{}, 2)
			w := newWorld(t, sidecar.Options{Options: drain.Options{CloseWait: 50 * time.Millisecond}, MessageWait: 50 * time.Millisecond, To: server(t, func(p *peer) {
				p.say(switching)
				if serverFloods {
					flood(p, ended)
					return
				}
				ended <- struct{}{}
				<-t.Context().Done()
			}), Mode: mode})
			c := w.dial()
			c.say(upgrade)
			c.hear(switching)
			go flood(c, ended)
			w.emptied()
			for range 2 {
				select {
				case <-ended:
				case <-time.After(soon):
					t.Fatalf("%s reads: a side goes on", name)
				}
			}
			if s := w.Status(); s.Evicted != 1 {
				t.Errorf("%s reads: status %+v, want 1 evicted", name, s)
			}
		})
	}
}

func TestLimit(t *testing.T) {
	eachMode(t, func(t *testing.T, mode sidecar.Mode) {
		w := newWorld(t, sidecar.Options{Options: drain.Options{Limit: 2}, To: server(t, greeter), Mode: mode})
		first := w.dial()
		first.hear("hello\n")
		w.dial().hear("hello\n")
		if mode == sidecar.TCP {
			w.dial().hearEnd()
		} else {
			w.dial().mustBeRefused(drain.ErrFull)
		}
		_ = first.Close()
		w.holds(1)
		w.dial().hear("hello\n")
		if s := w.Status(); s.Accepted != 3 || s.Active != 2 || s.Refused != 1 {
			t.Errorf("status %+v, want 3 accepted, 2 active, 1 refused", s)
		}
	})
}

func TestNewOnesAreRefusedWhileDraining(t *testing.T) {
	eachMode(t, func(t *testing.T, mode sidecar.Mode) {
		w := newWorld(t, sidecar.Options{To: server(t, greeter), Mode: mode})
		held := w.dial()
		held.hear("hello\n")
		w.order(1, 1)
		if mode == sidecar.TCP {
			w.dial().hearEnd()
		} else {
			w.dial().mustBeRefused(drain.ErrDraining)
			c := w.dial()
			c.say("HEAD / HTTP/1.1\r\n\r\n")
			if text := c.hearAll(); !strings.HasPrefix(text, "HTTP/1.1 503 ") || !strings.HasSuffix(text, "\r\n\r\n") {
				t.Errorf("HEAD is answered %q, want a head alone", text)
			}
			for _, noHTTP := range []string{"\x16\x03\x01", "G3X", "GET / whatever\r\n\r\n"} {
				c := w.dial()
				c.say(noHTTP)
				if text := c.hearAll(); text != "" {
					t.Errorf("%q is answered %q, want none", noHTTP, text)
				}
			}
		}
		if mode == sidecar.Auto {
			w.dial().hearEnd() // one that waits for the server's word
		}
		held.say("x\n")
		held.hear("you said x\n")
		if _, err := w.client.Release(t.Context(), w.base, contract.Release{Rollout: "r", Epoch: 1}); err != nil {
			t.Fatal(err)
		}
		w.dial().hear("hello\n")
	})
}

func TestServerThatIsDown(t *testing.T) {
	eachMode(t, func(t *testing.T, mode sidecar.Mode) {
		down := listen(t)
		_ = down.Close()
		w := newWorld(t, sidecar.Options{To: down.Addr().String(), Mode: mode})
		if mode == sidecar.TCP {
			w.dial().hearEnd()
		} else {
			w.dial().mustBeRefused(errors.New("unreachable: the server behind does not accept connections; connect to another instance"))
		}
		if s := w.Status(); s.Accepted != 0 || s.Refused != 1 || w.Unreachable() != 1 {
			t.Errorf("status %+v, %d unreachable; want 1 refused, not accepted", s, w.Unreachable())
		}
	})
}

func TestEndpoint(t *testing.T) {
	down := listen(t)
	_ = down.Close()
	w := newWorld(t, sidecar.Options{Options: drain.Options{Token: "secret", CountsReturns: true}, To: down.Addr().String(), Mode: sidecar.TCP})
	w.dial().hearEnd()
	get := func(token string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.base+"/drain", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(b)
	}
	if code, body := get("guessed"); code != http.StatusUnauthorized || !strings.Contains(body, "bearer token") {
		t.Errorf("a wrong token is answered %d %s, want 401", code, body)
	}
	want := `{"state":"serving","boot":"` + w.Status().Boot + `","can":["from","levels"],"active":0,"accepted":0,"evicted":0,"returned":null,"refused":1,"limit":0,"ceiling":null,"epoch":0,"step":0,"peers":{},"unreachable":1}` + "\n"
	if code, body := get("secret"); code != http.StatusOK || body != want {
		t.Errorf("GET /drain is answered %d %s, want %s", code, body, want)
	}
	if s := w.order(1, 0); s.State != contract.Drained {
		t.Errorf("the order is answered %+v, want drained", s)
	}
	http.DefaultClient.CloseIdleConnections()
}
