package sidecar_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/sidecar"
)

const (
	get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	ok  = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
)

// obeying answers each request when it is told how.
func obeying(answers <-chan string) func(*peer) {
	return func(p *peer) {
		for {
			if _, err := http.ReadRequest(p.r); err != nil {
				return
			}
			p.say(<-answers)
		}
	}
}

func (w *world) requests(n int) {
	w.t.Helper()
	w.until("the right number of requests under way", func() bool { return w.Requests() == n })
}

// A connection on which nothing is under way is nobody: it neither fills the limit
// nor is counted, and while the instance drains its next request is refused.
func TestAnIdleConnectionIsNobody(t *testing.T) {
	for _, mode := range []sidecar.Mode{sidecar.Auto, sidecar.WebSocket} {
		answers := make(chan string, 1)
		w := newWorld(t, sidecar.Options{Options: drain.Options{Limit: 1}, To: server(t, obeying(answers)), Mode: mode})
		pool := []*peer{w.dial(), w.dial(), w.dial()}
		w.dial() // one that never says a word
		for _, c := range pool {
			answers <- ok
			c.say(get)
			c.hear(ok)
		}
		w.requests(0)
		if s := w.Status(); s.Active != 0 || s.Accepted != 0 || s.Refused != 0 {
			t.Errorf("status %+v, want nobody", s)
		}
		w.order(1, 0)
		w.until("drained", func() bool { return w.Status().State == contract.Drained })
		pool[0].mustBeRefused(drain.ErrDraining)
		pool[1].say("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
		if text := pool[1].hearAll(); !strings.HasPrefix(text, "HTTP/1.1 503 ") || !strings.HasSuffix(text, "\r\n\r\n") || !strings.Contains(text, "\r\nX-Sluice-Refused: draining\r\n") {
			t.Errorf("HEAD is answered %q, want a head alone", text)
		}
		pool[2].say("\x00\x01")
		if text := pool[2].hearAll(); text != "" {
			t.Errorf("what is no HTTP is answered %q", text)
		}
	}
}

// A response under way ends by itself, whole, and one that waits behind it, too;
// what the client asks then is refused behind them.
func TestResponsesUnderWayEndByThemselves(t *testing.T) {
	answers := make(chan string)
	w := newWorld(t, sidecar.Options{Options: drain.Options{CloseWait: 20 * time.Millisecond}, To: server(t, obeying(answers))})
	c := w.dial()
	c.say(get + get)
	answers <- ok[:20]
	c.hear(ok[:20])
	w.requests(1)
	if s := w.order(1, 0); s.Active != 0 || s.State != contract.Draining {
		t.Errorf("the order is answered %+v, want draining, none held", s)
	}
	c.say(get)
	w.until("refused", func() bool { return w.Status().Refused == 1 })
	answers <- ok[20:] + ok
	c.hear(ok[20:] + ok)
	if res, body := c.response(); res.StatusCode != http.StatusServiceUnavailable || body != drain.ErrDraining.Error() {
		t.Errorf("the third request is answered %s %q, want 503", res.Status, body)
	}
	c.hearEnd()
	w.emptied()
	if s := w.Status(); s.State != contract.Drained || s.Evicted != 0 || s.Accepted != 0 {
		t.Errorf("status %+v, want drained, nobody evicted", s)
	}
}

// On SIGTERM they end by themselves, too, and are waited for.
func TestShutdownWaitsForResponses(t *testing.T) {
	answers := make(chan string)
	w := newWorld(t, sidecar.Options{To: server(t, obeying(answers))})
	c := w.dial()
	c.say(get)
	w.requests(1)
	ended := make(chan error, 1)
	go func() { ended <- w.Shutdown(t.Context()) }()
	w.until("draining", func() bool { return w.Status().State == contract.Draining })
	select {
	case err := <-ended:
		t.Fatalf("Shutdown returned %v with a response under way", err)
	default:
	}
	answers <- ok
	c.hear(ok)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A response that runs long is a connection that lasts, whenever it is found out;
// the funnel picks it.
func TestALongResponseIsSomebody(t *testing.T) {
	answers := make(chan string, 2)
	w := newWorld(t, sidecar.Options{Options: drain.Options{Close: 1000, Long: 100 * time.Millisecond}, To: server(t, obeying(answers))})
	endless := "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx"
	first, second := w.dial(), w.dial()
	answers <- endless
	first.say(get)
	first.hear(endless)
	w.holds(1)
	w.requests(0)
	answers <- endless
	second.say(get)
	second.hear(endless)
	w.order(1, 0)
	for _, c := range []*peer{first, second} {
		c.hearEnd()
		_ = c.CloseWrite()
	}
	w.emptied()
	if s := w.Status(); s.Evicted != 2 || s.Accepted != 2 {
		t.Errorf("status %+v, want both evicted", s)
	}
}

// A stream of events is somebody at once, and ends between two of them as if the
// server had ended it.
func TestAnEventStreamEndsInFull(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
	answers := make(chan string)
	w := newWorld(t, sidecar.Options{To: server(t, func(p *peer) {
		p.hear(get)
		for text := range answers {
			p.say(text)
		}
		_ = p.hearAll()
	})})
	c := w.dial()
	c.say(get)
	answers <- head + "9\r\ndata: 1\n\n\r\n9\r\ndata"
	c.hear(head + "9\r\ndata: 1\n\n\r\n9\r\ndata")
	w.holds(1)
	w.order(1, 0)
	w.until("evicted", func() bool { return w.Status().Evicted == 1 })
	answers <- ": 2\n\n\r\n9\r\ndata: 3\n\n\r\n"
	close(answers)
	c.hear(": 2\n\n\r\n0\r\n\r\n")
	c.hearEnd()
	_ = c.CloseWrite()
	w.emptied()
}

// An upgrade behind another request, in one breath.
func TestAPipelinedUpgrade(t *testing.T) {
	w := newWorld(t, sidecar.Options{To: server(t, func(p *peer) {
		p.hear("\r\n" + get + upgrade)
		p.say(ok + switching)
		_ = p.hearAll()
	})})
	c := w.dial()
	c.say("\r\n" + get + upgrade)
	c.hear(ok + switching)
	w.order(1, 0)
	c.hear(goodbye)
	c.say("\x88\x80abcd")
	c.hearEnd()
	_ = c.CloseWrite()
	w.emptied()
}

// A limit holds for handshakes that are under way at once.
func TestLimitOfHandshakes(t *testing.T) {
	goOn := make(chan struct{})
	w := newWorld(t, sidecar.Options{Options: drain.Options{Limit: 1}, To: server(t, func(p *peer) {
		p.hear(upgrade)
		<-goOn
		p.say(switching)
		_ = p.hearAll()
	})})
	both := []*peer{w.dial(), w.dial()}
	for _, c := range both {
		c.say(upgrade)
	}
	w.requests(2)
	close(goOn)
	refused := 0
	for _, c := range both {
		if res, err := http.ReadResponse(c.r, nil); err != nil {
			t.Error(err)
		} else if res.StatusCode == http.StatusServiceUnavailable {
			refused++
		}
	}
	if s := w.Status(); refused != 1 || s.Active != 1 || s.Accepted != 1 || s.Refused != 1 {
		t.Errorf("%d were refused, status %+v; want one of two", refused, s)
	}
}

// HTTP/2 is refused in one sentence.
func TestHTTP2IsRefused(t *testing.T) {
	for _, draining := range []error{nil, drain.ErrDraining} {
		w := newWorld(t, sidecar.Options{To: server(t, func(p *peer) { _ = p.hearAll() })})
		want := errors.New("HTTP/2 is not followed by the sidecar: its streams would all end at once; speak HTTP/1.1, use the library, or run the sidecar with --mode tcp")
		if draining != nil {
			w.order(1, 0)
			want = draining
		}
		c := w.dial()
		c.say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
		if text := c.hearAll(); !strings.HasSuffix(text, "\x00\x00\x00\x0d"+want.Error()) {
			t.Errorf("HTTP/2 is answered %q, want GOAWAY with %q", text, want)
		}
		w.holds(0)
	}
}
