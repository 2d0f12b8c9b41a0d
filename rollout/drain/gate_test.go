//go:build go1.26

package drain

import (
	"runtime"
	"sync"
	"testing"
	"time"
)

func TestLimit(t *testing.T) {
	g := New(Options{Limit: 2})
	a, _ := g.Admit(func() {})
	if _, err := g.Admit(func() {}); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Admit(func() {}); err != ErrFull {
		t.Errorf("the third: %v, want ErrFull", err)
	}
	a.Done()
	a.Done()
	if _, err := g.Admit(func() {}); err != nil {
		t.Errorf("after one ended: %v", err)
	}
	if s := g.Status(); s.Active != 2 || s.Accepted != 3 || s.Limit != 2 || s.Evicted != 0 {
		t.Errorf("status %+v, want 2 of 3 active", s)
	}
}

func TestReturnedIsNullUntilItIsCounted(t *testing.T) {
	g := New(Options{})
	c, _ := g.Admit(func() {})
	if s := g.Status(); s.Returned != nil {
		t.Errorf("returned is %d, want null", *s.Returned)
	}
	c.Returned()
	c.Returned()
	if s := g.Status(); s.Returned == nil || *s.Returned != 1 {
		t.Errorf("returned is %v, want 1", s.Returned)
	}
	if s := New(Options{CountsReturns: true}).Status(); s.Returned == nil || *s.Returned != 0 {
		t.Errorf("returned is %v, want 0", s.Returned)
	}
}

func TestTicketsAreCountedOncePerConnection(t *testing.T) {
	g := New(Options{})
	c, _ := g.Admit(func() {})
	if s := g.Status(); s.Ticketed != nil {
		t.Errorf("ticketed is %d, want none", *s.Ticketed)
	}
	c.Ticketed()
	c.Ticketed()
	if s := g.Status(); s.Ticketed == nil || *s.Ticketed != 1 || s.Returned != nil {
		t.Errorf("ticketed is %v and returned %v, want 1 and null", s.Ticketed, s.Returned)
	}
	if s := New(Options{CountsTickets: true}).Status(); s.Ticketed == nil || *s.Ticketed != 0 {
		t.Errorf("ticketed is %v, want 0", s.Ticketed)
	}
}

// Whatever comes and goes at the same time, the counts are right.
func TestCountsUnderConcurrency(t *testing.T) {
	g := New(Options{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			var mine []*Conn
			for i := range 2000 {
				c, err := g.Admit(func() {})
				if err != nil {
					t.Error(err)
					return
				}
				mine = append(mine, c)
				if i%3 == 0 {
					mine[i/2].Done()
				}
			}
			for _, c := range mine {
				c.Done()
			}
		})
	}
	wg.Wait()
	if s := g.Status(); s.Active != 0 || s.Accepted != 16_000 || len(g.held) != 0 {
		t.Errorf("status %+v, want 0 of 16000 active", s)
	}
}

func BenchmarkAdmitDone(b *testing.B) {
	g := New(Options{})
	for range 10_000 {
		_, _ = g.Admit(func() {})
	}
	b.ReportAllocs()
	for b.Loop() {
		c, _ := g.Admit(func() {})
		c.Done()
	}
}

// BenchmarkHeld reports the bytes of one held connection.
func BenchmarkHeld(b *testing.B) {
	const n = 100_000
	closing := func() {}
	for b.Loop() {
		before := heap()
		g := New(Options{})
		for range n {
			_, _ = g.Admit(closing)
		}
		b.ReportMetric(float64(heap()-before)/n, "bytes/conn")
		runtime.KeepAlive(g)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
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

func TestHandshakesAreInTheStatus(t *testing.T) {
	g := New(Options{})
	if got := g.Status().HandshakeMS; got != nil {
		t.Errorf("before the first handshake %d", *got)
	}
	g.Handshake(3 * time.Millisecond)
	if got := g.Status().HandshakeMS; got == nil || *got != 4 {
		t.Errorf("%v, want 4", got)
	}
}
