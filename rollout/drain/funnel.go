package drain

import "time"

const (
	// tick is the shortest distance between two wakes: closes that are due within
	// less go together.
	tick = time.Millisecond
	// maxLate is how late a close may be and still be caught up. Beyond it the
	// rest of the schedule is shifted, so that a process that was stopped for
	// seconds does not close in a burst what it missed.
	maxLate = 20 * time.Millisecond
)

// schedule is when the closes of one order are due. It reads no clock.
type schedule struct {
	next     time.Time     // when the next one is due
	distance time.Duration // between two
	left     int           // how many are still to come
}

// evenly spreads n closes over a time: the k-th, k = 0..n-1, is due at
// start + k·over/n.
func evenly(n int, start time.Time, over time.Duration) schedule {
	if n <= 0 {
		return schedule{}
	}
	return schedule{next: start, distance: over / time.Duration(n), left: n}
}

// due takes out the closes that are due now and says how many they are.
func (s *schedule) due(now time.Time) (n int) {
	if now.Sub(s.next) > maxLate {
		s.next = now
	}
	for s.left > 0 && !s.next.After(now) {
		s.next = s.next.Add(s.distance)
		s.left--
		n++
	}
	return n
}

// funnel carries out one schedule. All fields belong to Gate.mu.
type funnel struct {
	schedule
	// level is what may be held after the closes that were due so far: it falls
	// by one with each, whether natural closes made it unnecessary or not.
	level int
	timer *time.Timer
}

// run replaces the level's running funnel by another; called with mu held.
func (l *level) run(s schedule, now time.Time) {
	if l.funnel != nil {
		l.funnel.timer.Stop()
		l.funnel = nil
	}
	if s.left == 0 {
		return
	}
	f := &funnel{schedule: s, level: l.untold()}
	l.funnel = f
	f.timer = time.AfterFunc(s.next.Sub(now), func() { l.advance(f) })
}

// advance closes what is due and sets the timer for the next.
func (l *level) advance(f *funnel) {
	g := l.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if l.funnel != f {
		return // replaced while the timer fired
	}
	now := time.Now()
	for range f.due(now) {
		f.level--
		if l.untold() > f.level {
			l.tell()
		}
	}
	// Nothing that the level covers is admitted while its funnel runs, so one that has
	// reached its end by natural closes is finished. What came to last meanwhile
	// is above it.
	if f.left == 0 || l.untold() <= f.level-f.left {
		l.funnel = nil
		g.settle(now)
		return
	}
	f.timer.Reset(max(f.next.Sub(now), tick))
}
