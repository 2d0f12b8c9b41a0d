// Package histogram counts durations in buckets, for a percentile of what was lately.
package histogram

import (
	"math"
	"sync"
	"time"
)

// Recent is how long something took lately: two histograms of recent each, of which the
// older one is dropped. The zero value has seen nothing. Its methods may be called
// concurrently.
type Recent struct {
	mu        sync.Mutex
	since     time.Time // when now began
	now, last [48]uint32
}

// recent is how long a duration counts at least, and twice that at most.
const recent = 5 * time.Second

// bucket i holds durations up to 2^(i/2) ms: 1 ms to 3 h, in steps of √2.
func bucket(d time.Duration) int {
	ms := float64(d) / float64(time.Millisecond)
	if ms <= 1 {
		return 0
	}
	return min(int(math.Ceil(2*math.Log2(ms))), len(Recent{}.now)-1)
}

// Add counts one.
func (h *Recent) Add(d time.Duration, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.turn(at)
	h.now[bucket(d)]++
}

// turn drops what is too old.
func (h *Recent) turn(at time.Time) {
	switch age := at.Sub(h.since); {
	case age >= 2*recent:
		h.now, h.last, h.since = [48]uint32{}, [48]uint32{}, at
	case age >= recent:
		h.now, h.last, h.since = [48]uint32{}, h.now, h.since.Add(recent)
	}
}

// P99 is the 99th percentile in ms, rounded up to its bucket's bound; nil when
// there was nothing lately.
func (h *Recent) P99(at time.Time) *int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.turn(at)
	total := uint32(0)
	for i := range h.now {
		total += h.now[i] + h.last[i]
	}
	if total == 0 {
		return nil
	}
	above := total / 100 // how many may be slower
	for i := len(h.now) - 1; ; i-- {
		if n := h.now[i] + h.last[i]; n > above || i == 0 {
			took := int(math.Ceil(math.Pow(2, float64(i)/2)))
			return &took
		} else {
			above -= n
		}
	}
}
