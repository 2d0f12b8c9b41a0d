//go:build go1.26

package drain

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

func TestLastWordOfAnEpoch(t *testing.T) {
	g := New(Options{})
	order := func(epoch, step uint64) func() (contract.Status, error) {
		return func() (contract.Status, error) {
			return g.order(contract.Order{Rollout: "r", Epoch: epoch, Step: step})
		}
	}
	release := func(epoch uint64) func() (contract.Status, error) {
		return func() (contract.Status, error) { return g.release(contract.Release{Rollout: "r", Epoch: epoch}) }
	}
	for i, tc := range []struct {
		do    func() (contract.Status, error)
		stale bool
		epoch uint64
		step  uint64
		state contract.State
	}{
		{release(0), false, 0, 0, contract.Serving},
		{order(3, 5), false, 3, 5, contract.Drained},
		{order(3, 5), false, 3, 5, contract.Drained},
		{order(3, 4), true, 3, 5, contract.Drained},
		{order(2, 9), true, 3, 5, contract.Drained},
		{release(2), true, 3, 5, contract.Drained},
		{order(3, 6), false, 3, 6, contract.Drained},
		{release(3), false, 3, 0, contract.Serving},
		{release(3), false, 3, 0, contract.Serving},
		{order(3, 7), true, 3, 0, contract.Serving},
		{order(2, 7), true, 3, 0, contract.Serving},
		{order(4, 1), false, 4, 1, contract.Drained},
		{release(9), false, 9, 0, contract.Serving},
		{release(4), true, 9, 0, contract.Serving},
		{order(9, 99), true, 9, 0, contract.Serving},
		{order(10, 0), false, 10, 0, contract.Drained},
	} {
		_, err := tc.do()
		if _, got := errors.AsType[*stale](err); got != tc.stale {
			t.Errorf("%d: error %v, want stale %v", i, err, tc.stale)
		}
		if s := g.Status(); s.Epoch != tc.epoch || s.Step != tc.step || s.State != tc.state {
			t.Errorf("%d: status %+v, want epoch %d step %d %s", i, s, tc.epoch, tc.step, tc.state)
		}
	}
}

func TestReleaseStopsTheFunnel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, Options{}, 10)
		mustOrder(t, c.Gate, 1, new(0), 10*time.Second, 0)
		c.after(2500 * time.Millisecond)
		if s, err := c.release(contract.Release{Rollout: "r", Epoch: 1}); err != nil || s.State != contract.Serving || s.Ceiling != nil {
			t.Errorf("release: %+v, %v; want serving", s, err)
		}
		if closes := c.after(time.Hour); len(closes) != 3 {
			t.Errorf("%d closes, want the 3 before the release", len(closes))
		}
		if _, err := c.Admit(func() {}); err != nil {
			t.Errorf("admit after the release: %v", err)
		}
	})
}

func TestShutdownFunnelsAtItsOwnPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, Options{Close: 10, Every: time.Second}, 25)
		if err := c.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		closes := c.after(time.Minute)
		if len(closes) != 25 || closes[0] >= 100*time.Millisecond {
			t.Fatalf("closes at %v, want 25 from within the first 100ms", closes)
		}
		for k := 1; k < len(closes); k++ {
			if closes[k]-closes[k-1] != 100*time.Millisecond {
				t.Errorf("close %d came %s after the one before, want 100ms", k, closes[k]-closes[k-1])
			}
		}
		if s := c.Status(); s.State != contract.Drained || *s.Ceiling != 0 {
			t.Errorf("status %+v, want drained to 0", s)
		}
		if err := c.Shutdown(t.Context()); err != nil {
			t.Errorf("second shutdown: %v", err)
		}
	})
}

func TestShutdownSaysHowManyAreLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, Options{Close: 1, Every: time.Second}, 25)
		ended := errors.New("the grace period is over")
		ctx, cancel := context.WithCancelCause(t.Context()) // which does not say when it will end
		time.AfterFunc(4*time.Second, func() { cancel(ended) })
		err := c.Shutdown(ctx)
		if !errors.Is(err, ended) || !strings.Contains(err.Error(), "21 connections") {
			t.Errorf("shutdown: %v, want 21 left and the cause", err)
		}
		if _, err := c.Admit(func() {}); err != ErrDraining {
			t.Errorf("admit after shutdown: %v, want ErrDraining", err)
		}
		c.endByItself(25)
	})
}

func TestShutdownKeepsToTheOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, Options{Close: 1000, Every: time.Second}, 10)
		mustOrder(t, c.Gate, 1, new(8), 10*time.Second, 0) // 0s, 5s
		done := make(chan error, 1)
		go func() { done <- c.Shutdown(t.Context()) }()
		if closes := c.after(time.Minute); len(closes) != 2 {
			t.Errorf("%d closes, want the 2 that were ordered", len(closes))
		}
		mustOrder(t, c.Gate, 2, new(5), 3*time.Second, 0)
		if closes := c.after(2 * time.Minute); len(closes) != 5 {
			t.Errorf("%d closes, want the 5 that were ordered", len(closes))
		}
		// The rollout was called off: nobody orders any more, its own pace takes over.
		if s, err := c.release(contract.Release{Rollout: "r", Epoch: 1}); err != nil || s.State != contract.Draining {
			t.Errorf("release during shutdown: %+v, %v; want draining", s, err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if closes := c.after(3 * time.Minute); len(closes) != 10 {
			t.Errorf("%d closes, want all 10", len(closes))
		}
	})
}

// An owner that does not say Done lingers, and is waited for, however long that is.
func TestShutdownWaitsForWhatLingers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{CloseWait: 5 * time.Second})
		c, err := g.Admit(func() {})
		if err != nil {
			t.Fatal(err)
		}
		mustOrder(t, g, 1, new(0), 0, 0)
		time.Sleep(time.Minute)
		if s := g.Status(); s.State != contract.Draining || s.Active != 0 || s.Lingering != 1 || s.Check() != nil {
			t.Errorf("status %+v (%v), want draining with 1 that lingers", s, s.Check())
		}
		grace, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := g.Shutdown(grace); err == nil || !strings.Contains(err.Error(), "1 that linger") {
			t.Errorf("shutdown: %v, want that 1 lingers", err)
		}
		c.Done()
		if s := g.Status(); s.State != contract.Drained || s.Lingering != 0 {
			t.Errorf("status %+v, want drained", s)
		}
		if err := g.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
