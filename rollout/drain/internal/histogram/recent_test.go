//go:build go1.26

package histogram

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestRecent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h Recent
		if got := h.P99(time.Now()); got != nil {
			t.Fatalf("before the first one %d", *got)
		}
		for range 990 {
			h.Add(3*time.Millisecond, time.Now())
		}
		for range 10 {
			h.Add(2*time.Second, time.Now())
		}
		if got := h.P99(time.Now()); got == nil || *got != 4 {
			t.Fatalf("1 %% slow: p99 %v, want 4", got)
		}
		h.Add(2*time.Second, time.Now())
		if got := h.P99(time.Now()); got == nil || *got < 2000 || *got > 2900 {
			t.Fatalf("more than 1 %% slow: p99 %v", got)
		}
		time.Sleep(recent)
		if got := h.P99(time.Now()); got == nil {
			t.Fatal("forgotten too early")
		}
		time.Sleep(recent)
		if got := h.P99(time.Now()); got != nil {
			t.Fatalf("p99 %d of nothing", *got)
		}
	})
}
