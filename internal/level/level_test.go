package level

import "testing"

func TestHoweverOftenItIsSetOneReceiveTakesItBack(t *testing.T) {
	l := New()
	for range 3 {
		if set(l) {
			t.Fatal("it is set by itself")
		}
		l.Set()
		l.Set()
		if !set(l) {
			t.Fatal("it was not set")
		}
	}
}

func set(l Level) bool {
	select {
	case <-l:
		return true
	default:
		return false
	}
}
