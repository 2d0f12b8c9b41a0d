//go:build go1.26

package drain

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// audience is a gate whose connections can be asked: when each was asked and closed. Use
// it in a bubble.
type audience struct {
	*Gate
	start         time.Time
	conns         []*Conn
	asked, closed map[int]time.Duration
}

func newAudience(t *testing.T, opt Options, n int) *audience {
	t.Helper()
	a := &audience{New(opt), time.Now(), nil, map[int]time.Duration{}, map[int]time.Duration{}}
	for i := range n {
		note := func(at map[int]time.Duration) {
			a.Gate.mu.Lock()
			defer a.Gate.mu.Unlock()
			if _, twice := at[i]; twice {
				t.Errorf("connection %d is told twice", i)
			}
			at[i] = time.Since(a.start)
		}
		c, err := a.AdmitHooks(Hooks{Ask: func(time.Duration) { note(a.asked) }, Close: func() { note(a.closed); a.conns[i].Done() }})
		if err != nil {
			t.Fatal(err)
		}
		a.conns = append(a.conns, c)
	}
	return a
}

// take gives an order of a rollout at a step.
func (a *audience) take(t *testing.T, rollout string, epoch, step uint64, ceiling *int) {
	t.Helper()
	if _, err := a.order(contract.Order{Rollout: rollout, Epoch: epoch, Step: step, Ceiling: ceiling, OverMS: 1000, NoticeMS: 3000, Pick: contract.Oldest}); err != nil {
		t.Fatal(err)
	}
}

// says compares what the status counts.
func (a *audience) says(t *testing.T, want string) {
	t.Helper()
	synctest.Wait()
	s := a.Status()
	got := fmt.Sprintf("%s: active %d, asked %d, evicted %d, left %d, overstayed %d", s.State, s.Active, s.Asked, s.Evicted, s.Left, s.Overstayed)
	if got != want {
		t.Errorf("after %s: %s\nwant %s", time.Since(a.start), got, want)
	}
	if err := s.Check(); err != nil {
		t.Error(err)
	}
}

// The cap bounds the asks; the closes are the asks shifted by the notice, and who went by
// himself is not closed.
func TestAskedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAudience(t, Options{Notice: time.Minute}, 10)
		a.take(t, "r", 1, 1, new(6))
		pass(900 * time.Millisecond)
		a.says(t, "draining: active 10, asked 4, evicted 4, left 0, overstayed 0")
		a.conns[1].Done()
		a.take(t, "r", 1, 2, new(6)) // is kept by who was not asked
		pass(time.Second)
		a.says(t, "draining: active 9, asked 3, evicted 4, left 1, overstayed 0")
		a.take(t, "r", 1, 3, new(2))
		pass(time.Minute)
		a.says(t, "draining: active 2, asked 0, evicted 8, left 1, overstayed 7")
		for i := range 8 {
			if at, was := a.closed[i]; was != (i != 1) || was && at-a.asked[i] != 3*time.Second {
				t.Errorf("connection %d was asked after %s and closed after %s", i, a.asked[i], at)
			}
		}
		a.take(t, "r", 1, 4, new(0))
		pass(time.Minute)
		a.says(t, "drained: active 0, asked 0, evicted 10, left 1, overstayed 9")
	})
}

// While an order closes nothing the notices stand still, however long; afterwards the
// closes have the distances that the asks had.
func TestAPauseLongerThanTheNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAudience(t, Options{Notice: time.Minute}, 10)
		a.take(t, "r", 1, 1, new(6))
		pass(2100 * time.Millisecond)
		a.take(t, "r", 1, 2, nil)
		pass(time.Hour)
		a.says(t, "draining: active 10, asked 4, evicted 4, left 0, overstayed 0")
		a.take(t, "r", 1, 3, nil)
		pass(time.Hour)
		a.take(t, "r", 1, 4, new(6))
		pass(time.Minute)
		a.says(t, "draining: active 6, asked 0, evicted 4, left 0, overstayed 4")
		for i := range 4 {
			if want := a.asked[i] + 3*time.Second + 2*time.Hour; a.closed[i] != want {
				t.Errorf("connection %d was closed after %s, want %s", i, a.closed[i], want)
			}
		}
	})
}

// The control plane is gone: the step's asks and their closes are the last.
func TestTheTailOfAStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAudience(t, Options{Notice: time.Minute}, 10)
		a.take(t, "r", 1, 1, new(5))
		pass(24 * time.Hour)
		a.says(t, "draining: active 5, asked 0, evicted 5, left 0, overstayed 5")
		for i := range 5 {
			if want := time.Duration(i)*200*time.Millisecond + 3*time.Second; a.closed[i] != want {
				t.Errorf("connection %d was closed after %s, want %s", i, a.closed[i], want)
			}
		}
	})
}

// A release takes the asks back, and so does the order of another rollout, which asks
// anew; nobody is asked twice in one rollout, also in another epoch of it.
func TestAsksThatAreTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAudience(t, Options{Notice: time.Minute}, 4)
		a.take(t, "r", 1, 1, new(2))
		pass(time.Second)
		if _, err := a.release(contract.Release{Rollout: "r", Epoch: 1}); err != nil {
			t.Fatal(err)
		}
		pass(time.Hour)
		a.says(t, "serving: active 4, asked 0, evicted 2, left 0, overstayed 0")
		a.conns[0].Done()
		clear(a.asked)
		a.take(t, "s", 2, 1, new(1))
		pass(time.Second)
		a.says(t, "draining: active 3, asked 2, evicted 3, left 0, overstayed 0")
		a.take(t, "s", 3, 1, new(0)) // the same rollout: only the last is asked
		pass(time.Second)
		a.says(t, "draining: active 3, asked 3, evicted 4, left 0, overstayed 0")
		clear(a.asked)
		a.take(t, "u", 4, 1, nil)
		pass(time.Hour)
		a.says(t, "draining: active 3, asked 0, evicted 4, left 0, overstayed 0")
		a.take(t, "u", 4, 2, new(0))
		pass(time.Minute)
		a.says(t, "drained: active 0, asked 0, evicted 4, left 0, overstayed 3")
	})
}

// A process that was stopped for a while closes nothing in a burst.
func TestAStandstillDuringNotices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAudience(t, Options{Notice: time.Minute}, 10)
		a.take(t, "r", 1, 1, new(0))
		pass(1500 * time.Millisecond)
		a.Gate.mu.Lock()
		a.levels[0].notices.shift(-time.Second) // as if a second had passed unseen
		a.levels[0].await()
		a.Gate.mu.Unlock()
		pass(600 * time.Millisecond)
		a.Gate.mu.Lock()
		a.levels[0].notices.shift(-time.Second)
		a.Gate.mu.Unlock()
		pass(time.Minute)
		for i := 1; i < 10; i++ {
			if gap := a.closed[i] - a.closed[i-1]; gap < 100*time.Millisecond {
				t.Errorf("close %d came %s after the one before, want at least 100ms", i, gap)
			}
		}
	})
}

// Who cannot be asked is let go in his turn; the others are asked beside.
func TestWhoCannotBeAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAudience(t, Options{Notice: time.Minute}, 2)
		for range 2 {
			var c *Conn
			c, _ = a.Admit(func() { c.Done() })
		}
		a.take(t, "r", 1, 1, new(0))
		pass(time.Second)
		a.says(t, "draining: active 2, asked 2, evicted 4, left 0, overstayed 0")
	})
}

// An ask that blocks, on a client that does not read, keeps nobody.
func TestAnAskThatBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, stuck := New(Options{Notice: time.Minute}), make(chan struct{})
		for range 3 {
			var c *Conn
			c, _ = g.AdmitHooks(Hooks{Ask: func(time.Duration) { <-stuck }, Close: func() { c.Done() }})
		}
		if _, err := g.order(contract.Order{Rollout: "r", Epoch: 1, Ceiling: new(0), NoticeMS: 1000}); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Second)
		if s := g.Status(); s.State != contract.Drained || s.Overstayed != 3 {
			t.Errorf("status %+v", s)
		}
		close(stuck)
	})
}

// SIGTERM gives at most half of the time that is left as notice.
func TestShutdownGivesNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAudience(t, Options{Notice: time.Minute, Close: 10, Every: time.Second}, 5)
		if err := a.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			if a.closed[i]-a.asked[i] != time.Minute {
				t.Errorf("connection %d had %s of notice", i, a.closed[i]-a.asked[i])
			}
		}
	})
}

// Who is not covered any more is not closed by it.
func TestNoticesOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{Notice: time.Minute})
		for _, node := range []string{"edge-1", "edge-2"} {
			var c *Conn
			c, _ = g.AdmitHooks(Hooks{Ask: func(time.Duration) {}, Close: func() { c.Done() }, Node: node})
		}
		order := func(step uint64, from string) {
			if _, err := g.order(contract.Order{Rollout: "r", Level: "edge", Epoch: 1, Step: step, Ceiling: new(0), NoticeMS: 5000, From: []string{from}}); err != nil {
				t.Fatal(err)
			}
			pass(time.Second)
		}
		order(1, "edge-1")
		order(2, "edge-2")
		if s := g.Status(); s.Asked != 1 || s.LevelOf("edge").Asked != 1 {
			t.Errorf("status %+v, want one asked", s)
		}
		pass(time.Minute)
		if s := g.Status(); s.Active != 1 || s.Overstayed != 1 || s.LevelOf("edge").State != contract.Drained {
			t.Errorf("status %+v", s)
		}
	})
}
