//go:build go1.26

package drain

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// shutdown begins one with so much time, and returns what it will say.
func shutdown(t *testing.T, g *Gate, grace time.Duration) <-chan error {
	ctx, cancel := context.WithTimeout(t.Context(), grace)
	t.Cleanup(cancel)
	done := make(chan error, 1)
	go func() { done <- g.Shutdown(ctx) }()
	synctest.Wait()
	return done
}

// Whatever the own pace is, everybody is told before the grace period ends, evenly, with
// CloseWait left; with more time than that the own pace holds.
func TestShutdownKnowsItsDeadline(t *testing.T) {
	for _, tc := range []struct {
		grace, over time.Duration
		hurries     bool
	}{
		{5 * time.Second, 4 * time.Second, true},
		{time.Second, time.Second / 2, true}, // CloseWait takes half of it at most
		{time.Hour, 100 * time.Second, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			c := newCrowd(t, Options{Close: 10, Every: time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil))}, 1000)
			done := shutdown(t, c.Gate, tc.grace)
			if s := c.Status(); s.GraceMS == nil || *s.GraceMS != tc.grace.Milliseconds() || *s.Ceiling != 0 || s.State != contract.Draining {
				t.Errorf("%+v, want that it says its deadline", s)
			}
			if said := strings.Contains(log.String(), "faster than the own pace"); said != tc.hurries {
				t.Errorf("the log says %s", &log)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			closes := c.after(2 * tc.grace)
			if last := closes[len(closes)-1]; len(closes) != 1000 || last > tc.over || last < tc.over*9/10 {
				t.Errorf("grace %s: %d closes, the last after %s; want %s", tc.grace, len(closes), last, tc.over)
			}
			if most, even := bursts(closes, tc.over/10), 100; most > even+2 {
				t.Errorf("grace %s: %d closes within a tenth, want %d", tc.grace, most, even)
			}
		})
	}
}

// An order that nobody renews does not outlive the grace period: when only the own pace
// can still tell everybody in time, it takes over. Until then a pause is a pause.
func TestShutdownOutlivesOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, Options{Close: 10, Every: time.Second}, 100)
		mustOrder(t, c.Gate, 1, new(80), time.Second, 0)
		done := shutdown(t, c.Gate, time.Minute)
		mustOrder(t, c.Gate, 2, nil, 0, 0)
		if closes := c.after(48 * time.Second); len(closes) != 1 { // the rest, 99, takes 9.9 s, and CloseWait 1 s
			t.Errorf("%d closes during a pause, want the one that was due before it", len(closes))
		}
		c.after(50 * time.Second)
		mustOrder(t, c.Gate, 3, nil, 0, 0) // comes too late
		if s := c.Status(); s.Step != 3 || s.Ceiling == nil || *s.Ceiling != 0 {
			t.Errorf("%+v, want that it goes down to 0", s)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		closes := c.after(2 * time.Minute)
		if last := closes[99]; last > 59*time.Second || closes[1] < 49*time.Second || bursts(closes, time.Second) > 11 {
			t.Errorf("closes from %s to %s, %d in one second; want the own pace at last", closes[1], last, bursts(closes, time.Second))
		}
	})
}

// What lasts to the end, or only came to last, is told to go when CloseWait is left.
func TestShutdownTellsEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAsking(Options{Long: time.Minute})
		a.ask("/slow", "", "")
		done := shutdown(t, a.Gate, 10*time.Second)
		time.Sleep(9*time.Second - time.Millisecond)
		a.has(t, 0, 1, 0)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if a.ended["/slow"] != ErrEvicted {
			t.Errorf("ended by %v, want an eviction and no cut", a.ended["/slow"])
		}
	})
	// Who does not listen is named, not cut off in silence.
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		g := New(Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		c, _ := g.Admit(func() {})
		if err := <-shutdown(t, g, 10*time.Second); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 that linger") || !strings.Contains(log.String(), "1 that linger") {
			t.Errorf("shutdown: %v, and the log says %s", err, &log)
		}
		c.Done()
	})
}
