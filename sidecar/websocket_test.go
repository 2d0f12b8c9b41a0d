package sidecar_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain"
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
	if _, err := w.client.Order(t.Context(), w.base, drain.Order{Rollout: "r", Epoch: 1, Step: 1, Ceiling: new(1), Pick: drain.Idlest}); err != nil {
		t.Fatal(err)
	}
	idle.hearEnd()
	busy.say("x\n")
	busy.hear("you said x\n")
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
