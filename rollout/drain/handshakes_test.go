//go:build go1.26

package drain

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{})
		if got := g.Status().HandshakeMS; got != nil {
			t.Fatalf("before the first handshake %d", *got)
		}
		for range 990 {
			g.Handshake(3 * time.Millisecond)
		}
		for range 10 {
			g.Handshake(2 * time.Second)
		}
		if got := g.Status().HandshakeMS; got == nil || *got != 4 {
			t.Fatalf("1 %% slow: p99 %v, want 4", got)
		}
		g.Handshake(2 * time.Second)
		if got := g.Status().HandshakeMS; got == nil || *got < 2000 || *got > 2900 {
			t.Fatalf("more than 1 %% slow: p99 %v", got)
		}
		time.Sleep(recent)
		if got := g.Status().HandshakeMS; got == nil {
			t.Fatal("forgotten too early")
		}
		time.Sleep(recent)
		if got := g.Status().HandshakeMS; got != nil {
			t.Fatalf("p99 %d of nothing", *got)
		}
	})
}

func TestRefusedIsCounted(t *testing.T) {
	g := New(Options{Limit: 1})
	for range 3 {
		_, _ = g.Admit(func() {})
	}
	if s := g.Status(); s.Refused != 2 || s.Accepted != 1 {
		t.Errorf("%+v", s)
	}
}
