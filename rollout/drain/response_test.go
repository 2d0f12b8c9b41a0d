//go:build go1.26

package drain_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// abilities of a ResponseWriter, by the interfaces that servers' libraries ask for.
func abilities(w http.ResponseWriter) (can []string) {
	note := func(name string, ok bool) {
		if ok {
			can = append(can, name)
		}
	}
	_, ok := w.(http.Flusher)
	note("Flusher", ok)
	_, ok = w.(http.Hijacker)
	note("Hijacker", ok)
	_, ok = w.(http.Pusher)
	note("Pusher", ok)
	_, ok = w.(io.ReaderFrom)
	note("ReaderFrom", ok)
	_, ok = w.(io.StringWriter)
	note("StringWriter", ok)
	_, ok = w.(interface{ CloseNotify() <-chan bool })
	note("CloseNotifier", ok)
	_, ok = w.(interface{ FlushError() error })
	note("FlushError", ok)
	c := http.NewResponseController(w)
	note("SetReadDeadline", c.SetReadDeadline(time.Now().Add(time.Minute)) == nil)
	note("SetWriteDeadline", c.SetWriteDeadline(time.Now().Add(time.Minute)) == nil)
	note("EnableFullDuplex", c.EnableFullDuplex() == nil)
	return can
}

// behind wraps a ResponseWriter as a middleware does.
type behind struct{ http.ResponseWriter }

func (b behind) Unwrap() http.ResponseWriter { return b.ResponseWriter }

// A handler finds behind the gate what it finds without, over either protocol.
func TestResponseWriterKeepsItsAbilities(t *testing.T) {
	for name, how := range map[string]func(*httptest.Server){"http1": plain, "http2": http2} {
		t.Run(name, func(t *testing.T) {
			var without string
			inside := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if with := fmt.Sprint(abilities(w)); with != without {
					t.Errorf("with a gate %s, without %s", with, without)
				}
				hello(w)
			})
			g := drain.New(drain.Options{})
			gated := g.Handler(inside)
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				without = fmt.Sprint(abilities(w))
				gated.ServeHTTP(w, r)
			}))
			how(srv)
			defer srv.Close()
			i := &instance{Gate: g, srv: srv}
			if res, _ := i.get(t, "/"); (res.ProtoMajor == 2) != (name == "http2") {
				t.Errorf("served over %s", res.Proto)
			}
		})
	}
	// What hides a ResponseWriter behind Unwrap hides no connection from the gate.
	g := drain.New(drain.Options{})
	inside := g.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		if s := g.Status(); s.Active != 1 {
			t.Errorf("%+v, want 1 active", s)
		}
		_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
	}))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { inside.ServeHTTP(behind{w}, r) }))
	defer srv.Close()
	if res, err := http.Get(srv.URL); err != nil || res.StatusCode != http.StatusNoContent {
		t.Errorf("%v %v", res, err)
	}
}

// Trailers, announced or not, early hints and files come through.
func TestWhatAResponseIsMadeOf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "page")
	if err := os.WriteFile(file, []byte(strings.Repeat("x", 100_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, how := range map[string]func(*httptest.Server){"http1": plain, "http2": http2} {
		t.Run(name, func(t *testing.T) {
			i := newInstance(t, patient, how, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/file" {
					http.ServeFile(w, r, file)
					return
				}
				w.Header().Set("Link", "</style.css>; rel=preload")
				w.WriteHeader(http.StatusEarlyHints)
				w.Header().Set("Trailer", "Announced")
				body, _ := io.ReadAll(r.Body)
				_, _ = w.Write(body)
				w.Header().Set("Announced", "a")
				w.Header().Set(http.TrailerPrefix+"Unannounced", "b")
			}))
			res, err := i.srv.Client().Post(i.srv.URL, "text/plain", strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			if err != nil || string(body) != "body" || res.Trailer.Get("Announced") != "a" || res.Trailer.Get("Unannounced") != "b" {
				t.Errorf("%q %v with trailers %v", body, err, res.Trailer)
			}
			res, err = i.srv.Client().Get(i.srv.URL + "/file")
			if err != nil {
				t.Fatal(err)
			}
			if body, err = io.ReadAll(res.Body); err != nil || len(body) != 100_000 {
				t.Errorf("%d bytes, %v", len(body), err)
			}
			i.emptied(t)
		})
	}
}

// A handler that does not look at its context loses its client after CloseWait, and
// lingers until it returns; nothing that it does gives the connection back.
func TestHandlerThatIsDeaf(t *testing.T) {
	for name, how := range map[string]func(*httptest.Server){"http1": plain, "tls": (*httptest.Server).StartTLS, "http2": http2} {
		t.Run(name, func(t *testing.T) {
			news, wrote := make(chan string), make(chan error, 3)
			i := newInstance(t, drain.Options{CloseWait: 20 * time.Millisecond}, how, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				hello(w)
				<-news
				c := http.NewResponseController(w)
				wrote <- c.SetWriteDeadline(time.Now().Add(time.Minute))
				_, err := io.WriteString(w, "data: news\n")
				wrote <- err
				_, err = r.Body.Read(make([]byte, 1))
				wrote <- err
				_, _, _ = c.Hijack()
			}))
			_, body := i.get(t, "/")
			i.order(t, 1, 0)
			if rest, err := io.ReadAll(body); err == nil {
				t.Errorf("the client's response ended regularly, with %q", rest)
			}
			if s := i.Status(); s.State != contract.Draining || s.Active != 0 || s.Lingering != 1 {
				t.Errorf("%+v, want 1 that lingers", s)
			}
			close(news)
			if err := errors.Join(<-wrote, <-wrote); !errors.Is(err, net.ErrClosed) || !errors.Is(err, drain.ErrEvicted) {
				t.Errorf("it could write: %v", err)
			}
			if err := <-wrote; err == nil {
				t.Error("it could read")
			}
			i.emptied(t)
		})
	}
}

// A handler that goes by http.CloseNotifier hears that the client has gone, and that it
// is to go.
func TestCloseNotify(t *testing.T) {
	heard := make(chan bool)
	i := newInstance(t, patient, plain, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		gone := w.(interface{ CloseNotify() <-chan bool }).CloseNotify()
		hello(w)
		heard <- <-gone
	}))
	res, _ := i.get(t, "/")
	_ = res.Body.Close()
	<-heard
	i.get(t, "/")
	i.order(t, 1, 0)
	<-heard
	i.emptied(t)
}

// What Options.Pass names is neither refused nor counted.
func TestHealthChecksPass(t *testing.T) {
	opt := patient
	opt.Pass = func(r *http.Request) bool { return r.URL.Path == "/healthz" }
	i := newInstance(t, opt, plain, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { hello(w) }))
	i.order(t, 1, 0)
	for path, want := range map[string]int{"/healthz": 200, "/": 503} {
		res, err := http.Get(i.srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want || (want == 503) != (res.Header.Get("X-Sluice-Refused") == "draining") || (want == 503) != (res.Header.Get("Retry-After") == "1") {
			t.Errorf("%s: %d %v, want %d", path, res.StatusCode, res.Header, want)
		}
	}
	if s := i.Status(); s.State != contract.Drained || s.Accepted != 0 || s.Refused != 1 {
		t.Errorf("%+v", s)
	}
}

// websocketServer serves one way of handling a WebSocket in a bubble.
func websocketServer(t *testing.T, opt drain.Options, handle func(net.Conn, *bufio.ReadWriter)) (*drain.Gate, func() (net.Conn, *bufio.Reader)) {
	g, ln := drain.New(opt), make(drain.Pipes)
	srv := &http.Server{Handler: g.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, brw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		handle(c, brw)
	}))}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	return g, func() (net.Conn, *bufio.Reader) {
		c := ln.Dial()
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		br := bufio.NewReader(c)
		if res, err := http.ReadResponse(br, nil); err != nil || res.StatusCode != 101 {
			t.Fatalf("%v %v", res, err)
		}
		return c, br
	}
}

// A handler that has returned, or has panicked, after its client went without closing
// the connection has it closed: nobody else would.
func TestHandlerThatForgetsToClose(t *testing.T) {
	for name, handle := range map[string]func(c net.Conn, brw *bufio.ReadWriter){
		"read, then returns": func(c net.Conn, brw *bufio.ReadWriter) { _, _ = brw.ReadByte() },
		"read, then ends":    func(c net.Conn, brw *bufio.ReadWriter) { _, _ = brw.ReadByte(); panic(http.ErrAbortHandler) },
		"write, then returns": func(c net.Conn, brw *bufio.ReadWriter) {
			for {
				if _, err := c.Write([]byte("\x81\x01x")); err != nil {
					return
				}
			}
		},
		"returns, then reads": func(c net.Conn, brw *bufio.ReadWriter) {
			go func() { time.Sleep(time.Second); _, _ = c.Read(make([]byte, 1)) }()
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			g, dial := websocketServer(t, drain.Options{Limit: 1}, handle)
			for range 3 {
				c, br := dial()
				go func() { _, _ = io.Copy(io.Discard, br) }()
				_ = c.Close()
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if s := g.Status(); s.Held() != 0 {
					t.Errorf("%s: %+v, want nobody", name, s)
				}
			}
		})
	}
}

// One that is still used after its handler has returned is not closed: neither a
// deadline that passes nor the handler's end says that its client has gone.
func TestHandlerThatReturnsEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var served net.Conn
		g, dial := websocketServer(t, drain.Options{}, func(c net.Conn, _ *bufio.ReadWriter) { served = c })
		c, br := dial()
		synctest.Wait()
		_ = served.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := served.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		go func() { _, _ = served.Write([]byte("\x81\x01x")) }()
		if b, err := br.ReadByte(); err != nil || b != 0x81 || g.Status().Active != 1 {
			t.Errorf("%x, %v, %+v", b, err, g.Status())
		}
		_ = served.Close()
		_ = c.Close()
	})
}

// Someone who is picked in a handshake that takes longer than CloseWait is told when it
// is through.
func TestLateUpgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, ln, goOn := drain.New(drain.Options{}), make(drain.Pipes), make(chan bool)
		srv := &http.Server{Handler: g.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-goOn
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			_, _ = io.Copy(io.Discard, c)
		}))}
		go func() { _ = srv.Serve(ln) }()
		defer srv.Close()
		c := ln.Dial()
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_ = g.Shutdown(ctx)
		time.Sleep(time.Minute)
		if s := g.Status(); s.State != contract.Draining || s.Lingering != 1 {
			t.Errorf("%+v, want the handshake to linger", s)
		}
		close(goOn)
		br := bufio.NewReader(c)
		if res, err := http.ReadResponse(br, nil); err != nil || res.StatusCode != 101 {
			t.Fatal(res, err)
		}
		said, err := io.ReadAll(br)
		if string(said) != "\x88\x11\x03\xf4service restart" {
			t.Errorf("it was told %q, %v", said, err)
		}
		synctest.Wait()
		if s := g.Status(); s.State != contract.Drained {
			t.Errorf("%+v, want drained", s)
		}
	})
}
