package sim

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"time"
)

// tick is how exact the moments are at which clients of a large world arrive.
const tick = 10 * time.Millisecond

// lull is how long after the last look of a large world the next one is, and glance
// how late counts are looked at that no decision waits for. The controller's are 2
// and 250 ms; the promises have to hold all the more.
const (
	lull   = 10 * time.Millisecond
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

// clock is virtual time, and what happens in it.
type clock struct {
	now   time.Duration // since Epoch
	queue events
	seq   int
}

// Now is the time of the world's clock.
func (c *clock) Now() time.Time { return Epoch.Add(c.now) }

// after has do happen d from now.
func (c *clock) after(d time.Duration, do func()) { c.at(c.now+d, do) }

func (c *clock) at(at time.Duration, do func()) {
	c.seq++
	heap.Push(&c.queue, event{at: at, seq: c.seq, do: do})
}

// nextEvent is when the next thing happens.
func (c *clock) nextEvent() time.Duration {
	if len(c.queue) == 0 {
		return never
	}
	return c.queue[0].at
}

// pass lets the time come, and what is due then happen.
func (c *clock) pass(to time.Duration) {
	c.now = to
	for c.nextEvent() <= c.now {
		heap.Pop(&c.queue).(event).do()
	}
}

// alarm wakes the loop: when the decision said so, or when something is new.
type alarm struct {
	looked  time.Duration // the last look
	due     time.Duration // when to decide again
	dirty   bool
	counted bool // counts are new
}

// ring says that something is new, and count that counts are.
func (a *alarm) ring()  { a.dirty = true }
func (a *alarm) count() { a.counted = true }

// hush says that the loop looks.
func (a *alarm) hush(now time.Duration) { a.looked, a.dirty, a.counted = now, false, false }

// wake is when to look next, if news may be looked at soon and counts later.
func (a *alarm) wake(soon, later time.Duration) time.Duration {
	wake := a.due
	if a.dirty {
		wake = min(wake, soon)
	}
	if a.counted {
		wake = min(wake, later)
	}
	return wake
}

// ground is what all parts of a world stand on: what it is like, its dice, its time,
// and how they tell the loop that something is new.
type ground struct {
	conf Config
	rng  *rand.Rand
	clock
	alarm
}

// nextLook is when the loop looks next: in a large world news wait for a lull after the
// last look, and counts for a glance.
func (g *ground) nextLook() time.Duration {
	if g.conf.Exact {
		return g.wake(g.now, g.now)
	}
	return g.wake(g.looked+lull, g.looked+glance)
}
