package sim

import (
	"container/heap"
	"math"
	"time"
)

// tick is how exact the moments are at which clients of a large world arrive.
const tick = 10 * time.Millisecond

// crowd is how long after the last look of a large world the next one is, and glance
// how late counts are looked at that no decision waits for. The controller's are 2
// and 250 ms; the promises have to hold all the more.
const (
	crowd  = 10 * time.Millisecond
	glance = time.Second
)

const never = time.Duration(math.MaxInt64)

type event struct {
	at  time.Duration
	seq int
	do  func()
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// after has do happen d from now.
func (w *World) after(d time.Duration, do func()) { w.at(w.now+d, do) }

func (w *World) at(at time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, event{at: at, seq: w.seq, do: do})
}

// Pass lets virtual time pass.
func (w *World) Pass(d time.Duration) { w.Run(d, func() bool { return false }) }

// Run lets virtual time pass until done holds or d is over, and reports whether
// it holds.
func (w *World) Run(d time.Duration, done func() bool) bool {
	end := w.now + d
	w.dirty = true
	for !done() {
		if w.wake() <= w.now {
			w.look()
		}
		to := min(w.next, end, max(w.wake(), w.now))
		if len(w.queue) > 0 {
			to = min(to, w.queue[0].at)
		}
		if w.conf.Exact {
			to = min(to, w.nextClose(), w.nextAsk())
		}
		w.advance(to)
		w.now = to
		for len(w.queue) > 0 && w.queue[0].at <= w.now {
			heap.Pop(&w.queue).(event).do()
		}
		switch {
		case w.conf.Exact:
			w.send()
		case w.now >= w.next:
			w.ticks()
		}
		if w.now >= end {
			return done()
		}
	}
	return true
}

// ticks is what happens in a large world in every tick.
func (w *World) ticks() {
	w.next += tick
	w.arrivals()
	w.send()
	if w.now%reporting < tick {
		w.report()
		w.counted = true
		if w.chores != nil {
			w.chores()
		}
	}
}

// wake is when to look next: when the decision said so, or when something is new. In
// a large world that is a crowd after the last look, and a glance after it when only
// counts are new.
func (w *World) wake() time.Duration {
	soon, later := w.looked+crowd, w.looked+glance
	if w.conf.Exact {
		soon, later = w.now, w.now
	}
	wake := w.due
	if w.dirty {
		wake = min(wake, soon)
	}
	if w.counted {
		wake = min(wake, later)
	}
	return wake
}
