package leak

import (
	"strings"
	"testing"
	"time"
)

func TestGoroutinesThatStayAreSeen(t *testing.T) {
	if left := Left(patience); len(left) > 0 {
		t.Fatalf("before there was any: %s", left)
	}
	end := make(chan struct{})
	go func() { <-end }()
	if left := Left(0); len(left) != 1 || !strings.Contains(left[0], "TestGoroutinesThatStayAreSeen") {
		t.Errorf("left are %q, want the one that stays", left)
	}
	close(end)
	if left := Left(patience); len(left) > 0 {
		t.Errorf("left are %q after its end", left)
	}
}

func TestOneThatEndsInTimeIsNoLeak(t *testing.T) {
	go func() { <-time.After(20 * time.Millisecond) }()
	if left := Left(patience); len(left) > 0 {
		t.Errorf("left are %q", left)
	}
}
