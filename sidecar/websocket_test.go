package sidecar_test

import (
	"context"
	"encoding/binary"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/sidecar"
)

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
	if _, err := w.client.Order(t.Context(), w.base, contract.Order{Rollout: "r", Epoch: 1, Step: 1, Ceiling: new(1), Pick: contract.Idlest}); err != nil {
		t.Fatal(err)
	}
	idle.hearEnd()
	busy.say("x\n")
	busy.hear("you said x\n")
}

// One whose handshake is not answered when the order comes is refused like a new
// one, or if the answer has begun told behind it; one that is evicted within a
// message is told behind that.
func TestEvictedInTheMidst(t *testing.T) {
	parts := []string{switching, "\x01\x0bhello there", "\x89\x00", "\x80\x01!"}
	all := strings.Join(parts, "")
	for cut := range len(all) {
		reached, goOn := make(chan struct{}), make(chan struct{})
		told := make(chan string, 1)
		w := newWorld(t, sidecar.Options{To: server(t, func(p *peer) {
			p.hear(upgrade)
			p.say(all[:cut])
			close(reached)
			<-goOn
			p.say(all[cut:])
			told <- p.hearAll()
		})})
		c := w.dial()
		c.say(upgrade)
		<-reached
		c.hear(all[:cut])
		w.order(1, 0)
		if cut >= len(switching) {
			w.until("evicted", func() bool { return w.Status().Evicted == 1 })
		}
		close(goOn)
		if cut == 0 {
			if res, body := c.response(); res.StatusCode != http.StatusServiceUnavailable || body != drain.ErrDraining.Error() {
				t.Errorf("the client is answered %s %q, want 503", res.Status, body)
			}
		} else {
			heard := all[:cut]
			for !strings.HasSuffix(heard, goodbye) {
				b, err := c.r.ReadByte()
				if err != nil {
					t.Fatalf("evicted after %d bytes, heard %q, %v", cut, heard, err)
				}
				heard += string([]byte{b})
			}
			if said := strings.TrimSuffix(heard, goodbye); said != switching && said != all {
				t.Errorf("evicted after %d bytes, heard %q, where the goodbye is not between two messages", cut, heard)
			}
			c.say("\x88\x80abcd")
		}
		c.hearEnd()
		_ = c.Close()
		if text := <-told; cut > 0 && (len(text) != 8 || !strings.HasPrefix(text, "\x88\x82")) {
			t.Errorf("the server is told %q, want a close frame of two bytes", text)
		}
		w.emptied()
	}
}

// A message in fragments that does not end is cut short between two of them when
// CloseWait is over.
func TestAMessageWithoutEnd(t *testing.T) {
	w := newWorld(t, sidecar.Options{Options: drain.Options{CloseWait: 50 * time.Millisecond}, To: server(t, func(p *peer) {
		p.hear(upgrade)
		p.say(switching + "\x01\x05hello")
		_ = p.hearAll()
	})})
	c := w.dial()
	c.say(upgrade)
	c.hear(switching + "\x01\x05hello")
	w.order(1, 0)
	c.hear(goodbye)
	c.say("\x88\x80abcd")
	c.hearEnd()
	_ = c.CloseWrite()
	w.emptied()
}

// A client that reads slowly gets its frame to the end, long after CloseWait, and
// its goodbye behind it.
func TestASlowReadersFrame(t *testing.T) {
	const size = 20 << 20
	begun, read := make(chan struct{}), make(chan struct{})
	w := newWorld(t, sidecar.Options{Options: drain.Options{CloseWait: 20 * time.Millisecond}, MessageWait: patient, To: server(t, func(p *peer) {
		p.hear(upgrade)
		p.say(switching + string(binary.BigEndian.AppendUint64([]byte{0x82, 127}, size)))
		close(begun)
		p.say(strings.Repeat("x", size))
		_ = p.hearAll()
	})})
	c := w.dial()
	c.say(upgrade)
	c.hear(switching)
	<-begun
	w.order(1, 0)
	w.until("evicted", func() bool { return w.Status().Evicted == 1 })
	time.AfterFunc(200*time.Millisecond, func() { close(read) }) // CloseWait is long over
	if s := w.Status(); s.State != contract.Draining {
		t.Errorf("status %+v while a frame is under way, want draining", s)
	}
	<-read
	c.hear("\x82\x7f\x00\x00\x00\x00\x01\x40\x00\x00")
	c.hear(strings.Repeat("x", size))
	c.hear(goodbye)
	c.say("\x88\x80abcd")
	c.hearEnd()
	_ = c.CloseWrite()
	w.emptied()
}

// What a client answers to the goodbye is not passed on, masked or not; what it
// said before is.
func TestTheAnswerToTheGoodbye(t *testing.T) {
	for _, answer := range []string{"\x88\x82abcd\x62\x96", "\x88\x02\x03\xf4", "\x88\x80abcd"} {
		told := make(chan string, 1)
		w := newWorld(t, sidecar.Options{To: server(t, func(p *peer) {
			p.hear(upgrade)
			p.say(switching)
			p.hear("\x81\x83abcdxyz\x81\x83abcdxyz")
			told <- p.hearAll()
		})})
		c := w.dial()
		c.say(upgrade)
		c.hear(switching)
		c.say("\x81\x83abcdx") // half a frame
		w.until("asked", func() bool { return w.Status().Active == 1 })
		w.order(1, 0)
		c.hear(goodbye)
		c.say("yz\x81\x83abcdxyz" + answer + "\x81\x83abcdxyz")
		c.hearEnd()
		_ = c.CloseWrite()
		if text := <-told; len(text) != 8 || !strings.HasPrefix(text, "\x88\x82") || text[6]^text[2] != 1001>>8 || text[7]^text[3] != 1001&0xff {
			t.Errorf("the client answered %q, the server heard %q, want 1001 alone", answer, text)
		}
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
