//go:build go1.26

package drain

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// crowd is a gate with connections whose evictions are noted. Use it in a bubble.
type crowd struct {
	*Gate
	start time.Time
	conns []*Conn

	mu     sync.Mutex
	closes []time.Duration // since start, in the order of the evictions
	out    map[*Conn]bool
}

func newCrowd(t *testing.T, opt Options, n int) *crowd {
	t.Helper()
	c := &crowd{Gate: New(opt), start: time.Now(), out: map[*Conn]bool{}}
	for range n {
		var conn *Conn
		conn, err := c.Admit(func() {
			c.mu.Lock()
			c.closes = append(c.closes, time.Since(c.start))
			if c.out[conn] {
				t.Error("a connection was evicted twice")
			}
			c.out[conn] = true
			c.mu.Unlock()
			conn.Done()
		})
		if err != nil {
			t.Fatal(err)
		}
		c.conns = append(c.conns, conn)
	}
	return c
}

// endByItself ends n connections that were not evicted.
func (c *crowd) endByItself(n int) {
	synctest.Wait()
	for _, conn := range c.conns {
		c.mu.Lock()
		end := n > 0 && !c.out[conn]
		c.out[conn] = c.out[conn] || end
		c.mu.Unlock()
		if end {
			conn.Done()
			n--
		}
	}
}

func (c *crowd) after(d time.Duration) []time.Duration {
	time.Sleep(d - time.Since(c.start))
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.closes)
}

func mustOrder(t *testing.T, g *Gate, step uint64, ceiling *int, over, start time.Duration) contract.Status {
	t.Helper()
	s, err := g.order(contract.Order{Rollout: "r", Epoch: 1, Step: step, Ceiling: ceiling, OverMS: over.Milliseconds(), StartMS: start.Milliseconds()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// bursts reports the most closes in any window of length T.
func bursts(closes []time.Duration, window time.Duration) (most int) {
	for i := range closes {
		n := 0
		for _, c := range closes[i:] {
			if c-closes[i] <= window {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

func TestEvenOverTheStep(t *testing.T) {
	for _, tc := range []struct {
		held, ceiling int
		over, start   time.Duration
	}{
		{10, 0, 3 * time.Second, 0},
		{10, 7, 3 * time.Second, 140 * time.Millisecond},
		{1000, 990, time.Second, 999 * time.Millisecond},
		{1000, 0, 3 * time.Second, 1 * time.Millisecond},
		{1, 0, time.Hour, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newCrowd(t, Options{}, tc.held)
			mustOrder(t, c.Gate, 1, new(tc.ceiling), tc.over, tc.start)
			closes := c.after(tc.start + tc.over)
			n := tc.held - tc.ceiling
			if len(closes) != n {
				t.Fatalf("%+v: %d closes, want %d", tc, len(closes), n)
			}
			for k, at := range closes {
				if want := tc.start + time.Duration(k)*(tc.over/time.Duration(n)); at != want {
					t.Fatalf("%+v: close %d came at %s, want %s", tc, k, at, want)
				}
			}
		})
	}
}

// Order follows order, each as late or early as a network makes it.
func TestNoWindowHoldsMoreThanOneStepAndOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, every = 10, 3 * time.Second
		c := newCrowd(t, Options{}, 200)
		for step := range uint64(12) {
			active := c.Status().Active
			mustOrder(t, c.Gate, step, new(max(0, active-n)), every, 140*time.Millisecond)
			c.after(time.Duration(step+1) * every)
		}
		closes := c.after(time.Minute)
		if most := bursts(closes, every-1); most > n {
			t.Errorf("%d closes in a window, want at most %d", most, n)
		}
		if most := bursts(closes, every); most > n+1 {
			t.Errorf("%d closes at a window's edge, want at most %d", most, n+1)
		}
		if len(closes) != 120 {
			t.Errorf("%d closes, want 120", len(closes))
		}
	})
}

func TestClosesUnderAMillisecondApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, Options{}, 10_000)
		mustOrder(t, c.Gate, 1, new(0), time.Second, 0)
		closes := c.after(time.Second)
		if len(closes) != 10_000 {
			t.Fatalf("%d closes within the step, want 10000", len(closes))
		}
		perMS := map[time.Duration]int{}
		for _, at := range closes {
			perMS[at/time.Millisecond]++
		}
		for at, n := range perMS {
			if n > 20 {
				t.Errorf("%d closes within millisecond %d, want about 10", n, at)
			}
		}
	})
}

func TestNaturalClosesCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, Options{}, 10)
		mustOrder(t, c.Gate, 1, new(0), 10*time.Second, 0) // one each second
		c.after(2500 * time.Millisecond)                   // 0s, 1s, 2s: 7 held
		c.endByItself(3)                                   // 4 held, which is the level after the close at 5s
		closes := c.after(time.Minute)
		want := []time.Duration{0, 1, 2, 6, 7, 8, 9}
		for i := range want {
			want[i] *= time.Second
		}
		if !slices.Equal(closes, want) {
			t.Errorf("closes at %v, want %v", closes, want)
		}
		if s := c.Status(); s.Evicted != 7 || s.Active != 0 || s.State != contract.Drained {
			t.Errorf("status is %+v, want 7 evicted and drained", s)
		}
	})
}

func TestNaturalClosesEndAStepEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, Options{}, 10)
		mustOrder(t, c.Gate, 1, new(8), 10*time.Second, time.Second)
		c.endByItself(2)
		if closes := c.after(time.Minute); len(closes) > 0 {
			t.Errorf("closes at %v, want none: the ceiling was reached without", closes)
		}
	})
}

func TestPauseInMidStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, Options{}, 10)
		mustOrder(t, c.Gate, 1, new(0), 10*time.Second, 0)
		c.after(3500 * time.Millisecond)
		s := mustOrder(t, c.Gate, 2, nil, 10*time.Second, 0)
		if s.Ceiling != nil || s.State != contract.Draining {
			t.Errorf("status is %+v, want draining without a ceiling", s)
		}
		if closes := c.after(time.Hour); len(closes) != 4 {
			t.Errorf("%d closes, want the 4 before the pause", len(closes))
		}
		if _, err := c.Admit(func() {}); err != ErrDraining {
			t.Errorf("admit during a pause: %v, want ErrDraining", err)
		}
		mustOrder(t, c.Gate, 3, new(9), time.Second, 0) // above what is held
		if closes := c.after(2 * time.Hour); len(closes) != 4 {
			t.Errorf("%d closes after a ceiling above what is held, want still 4", len(closes))
		}
	})
}

func TestANewerOrderReplacesTheRunningOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, Options{}, 100)
		mustOrder(t, c.Gate, 1, new(0), 10*time.Second, 0) // each 100ms
		c.after(950 * time.Millisecond)                    // 10
		mustOrder(t, c.Gate, 2, new(88), 2*time.Second, 500*time.Millisecond)
		closes := c.after(time.Minute)
		want := []time.Duration{1450 * time.Millisecond, 2450 * time.Millisecond}
		if len(closes) != 12 || !slices.Equal(closes[10:], want) {
			t.Errorf("closes after the second order at %v, want %v", closes[10:], want)
		}
	})
}

func TestRepeatingAnOrderChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, Options{}, 10)
		for at := range 10 {
			mustOrder(t, c.Gate, 7, new(0), 10*time.Second, 500*time.Millisecond)
			if closes := c.after(time.Duration(at+1) * time.Second); len(closes) != at+1 || closes[at] != time.Duration(at)*time.Second+500*time.Millisecond {
				t.Fatalf("closes at %v, want one at each half second", closes)
			}
		}
	})
}

func TestOverZeroClosesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, Options{}, 50)
		mustOrder(t, c.Gate, 1, new(20), 0, 100*time.Millisecond)
		if closes := c.after(99 * time.Millisecond); len(closes) != 0 {
			t.Errorf("%d closes before start_ms", len(closes))
		}
		if closes := c.after(100 * time.Millisecond); len(closes) != 30 {
			t.Errorf("%d closes at start_ms, want 30", len(closes))
		}
	})
}

// A process that was stopped for two seconds goes on at the old distances.
func TestALateCloseShiftsTheRest(t *testing.T) {
	start := time.Now()
	s := evenly(100, start, 10*time.Second)
	if n := s.due(start); n != 1 {
		t.Fatalf("%d due at the start, want 1", n)
	}
	if n := s.due(start.Add(105 * time.Millisecond)); n != 1 {
		t.Fatalf("%d due 5ms late, want 1", n)
	}
	late := start.Add(2200 * time.Millisecond)
	if n := s.due(late); n != 1 {
		t.Fatalf("%d due 2s late, want 1: no burst", n)
	}
	if want := late.Add(100 * time.Millisecond); s.next != want || s.left != 97 {
		t.Errorf("next is due %s after the late one and %d are left, want 100ms and 97", s.next.Sub(late), s.left)
	}

	s = evenly(100_000, start, 10*time.Second) // ten a millisecond
	if n := s.due(start.Add(5 * time.Millisecond)); n != 51 {
		t.Errorf("%d due 5ms late, want 51: small delays are caught up", n)
	}
	if n := s.due(start.Add(time.Second)); n != 1 {
		t.Errorf("%d due 1s late, want 1", n)
	}
}

// The same through the gate, whose next close is found to be two seconds overdue.
func TestAStoppedProcessDoesNotBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, Options{}, 100)
		mustOrder(t, c.Gate, 1, new(0), 10*time.Second, 0)
		c.after(950 * time.Millisecond)
		c.Gate.mu.Lock()
		c.levels[0].funnel.next = c.levels[0].funnel.next.Add(-2 * time.Second)
		c.Gate.mu.Unlock()
		closes := c.after(time.Minute)
		if len(closes) != 100 {
			t.Fatalf("%d closes, want 100", len(closes))
		}
		for k := 1; k < len(closes); k++ {
			if closes[k]-closes[k-1] < 100*time.Millisecond {
				t.Fatalf("close %d came %s after the one before, want at least 100ms", k, closes[k]-closes[k-1])
			}
		}
	})
}

func TestWhichGoIsRandom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := make([]int, 10)
		for range 2000 {
			c := newCrowd(t, Options{}, len(gone))
			mustOrder(t, c.Gate, 1, new(len(gone)-1), 0, 0)
			c.after(time.Millisecond)
			for i, conn := range c.conns {
				if c.out[conn] {
					gone[i]++
				}
			}
		}
		for i, n := range gone { // 200 expected, standard deviation 13.4
			if n < 120 || n > 280 {
				t.Errorf("connection %d went %d times of 2000, want about 200", i, n)
			}
		}
	})
}
