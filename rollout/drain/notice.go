package drain

import (
	"net/http"
	"slices"
	"time"
)

// asker is an owner that can ask its client to come over while the connection works on.
type asker interface {
	// canAsk reports whether it can; ask does it, in its own goroutine, and may block.
	canAsk() bool
	ask(within time.Duration)
}

// asks is how an owner asks, once the application has said how. Belongs to Gate.mu.
type asks struct{ asking func(within time.Duration) }

func (a *asks) canAsk() bool                         { return a.asking != nil }
func (a *asks) ask(within time.Duration)             { a.asking(within) }
func (a *asks) onAsk(how func(within time.Duration)) { a.asking = how }

// hooked is an owner that asks first.
type hooked struct {
	closeFunc
	asks
}

// OnAsk says how to ask the client at the other end to come over; see Hooks.Ask. Without
// it a connection of Handler or Listener is let go without being asked.
func (c *Conn) OnAsk(ask func(within time.Duration)) {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	switch o := c.owner.(type) {
	case closeFunc:
		c.owner = &hooked{o, asks{ask}}
	case interface{ onAsk(func(time.Duration)) }:
		o.onAsk(ask)
	}
}

// OnAsk is Conn.OnAsk of the connection of a request that came through Gate.Handler, also
// after it was hijacked: the handler knows by which message its clients are asked. It does
// nothing for a request of no Gate.
func OnAsk(r *http.Request, ask func(within time.Duration)) {
	if c, ok := r.Context().Value(connKey{}).(*Conn); ok {
		c.OnAsk(ask)
	}
}

// notices are the connections that one level has asked, in that order. Their time stands
// still while the level's order closes nothing, so the closes at its end have the distances
// that the asks had. The zero value has asked nobody. All fields belong to Gate.mu.
type notices struct {
	list  []notice
	still time.Time // since when time stands still; zero: it runs
	timer *time.Timer
	run   int // of the timer: one that is replaced does nothing
}

type notice struct {
	conn *Conn
	end  time.Time
}

// open reports whether the connection is asked and has not gone.
func (n notice) open() bool { return n.conn.at >= 0 && n.conn.asked }

// untold is how many connections are held that the level covers and were not asked: what
// its ceiling bounds.
func (l *level) untold() int { return l.held - l.asked }

// tell has the next connection that the level covers go: asked, if that can be and there
// is a notice, or let go at once.
func (l *level) tell() {
	g := l.gate
	c := l.next()
	if c == nil {
		return
	}
	if !c.told { // in a rollout that was taken back
		c.told = true
		g.evicted++
	}
	a, can := c.owner.(asker)
	if l.notice == 0 || !can || !a.canAsk() {
		g.letGo(c)
		return
	}
	c.asked = true
	g.asked++
	for covering := range g.covering(c) {
		covering.asked++
	}
	l.notices.list = append(l.notices.list, notice{c, time.Now().Add(l.notice)})
	if len(l.notices.list) == 1 {
		l.await()
	}
	go a.ask(l.notice)
}

// unask has the connection be one that was not asked.
func (g *Gate) unask(c *Conn) {
	if !c.asked {
		return
	}
	c.asked = false
	g.asked--
	for l := range g.covering(c) {
		l.asked--
	}
}

// await sets the timer for the next end of a notice.
func (l *level) await() {
	g := l.gate
	n := &l.notices
	if n.timer != nil {
		n.timer.Stop()
		n.timer = nil
	}
	n.run++
	for len(n.list) > 0 && !n.list[0].open() {
		n.list[0] = notice{}
		n.list = n.list[1:]
	}
	if len(n.list) == 0 || !n.still.IsZero() {
		return
	}
	run := n.run
	n.timer = time.AfterFunc(max(time.Until(n.list[0].end), tick), func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if n.run == run {
			l.overstay(time.Now())
		}
	})
}

// overstay closes those whose notice has ended. After a standstill of the process the
// ends that follow are later by as much, so that nothing comes in a burst.
func (l *level) overstay(now time.Time) {
	g := l.gate
	n := &l.notices
	if late := now.Sub(n.list[0].end); late > maxLate {
		n.shift(late)
	}
	for len(n.list) > 0 && (!n.list[0].open() || !n.list[0].end.After(now)) {
		c := n.list[0].conn
		if n.list[0].open() {
			g.unask(c)
			g.overstayed++
			g.letGo(c)
		}
		n.list[0] = notice{}
		n.list = n.list[1:]
	}
	l.await()
}

func (n *notices) shift(by time.Duration) {
	for i := range n.list {
		n.list[i].end = n.list[i].end.Add(by)
	}
}

// hold has the time of the level's notices stand still, and resume has it go on.
func (l *level) holdNotices(now time.Time) {
	if l.notices.still.IsZero() {
		l.notices.still = now
	}
	l.await()
}

func (l *level) resumeNotices(now time.Time) {
	if n := &l.notices; !n.still.IsZero() {
		n.shift(now.Sub(n.still))
		n.still = time.Time{}
	}
	l.await()
}

// keep voids the notices of those that the level does not cover any more.
func (l *level) keep() {
	g := l.gate
	l.notices.list = slices.DeleteFunc(l.notices.list, func(n notice) bool {
		if !n.open() || l.from.covers(g.origins.of(n.conn)) {
			return !n.open()
		}
		g.unask(n.conn)
		return true
	})
	l.await()
}

// void ends the level's notices: who was asked may stay, and can be asked again.
func (l *level) void() {
	g := l.gate
	for _, n := range l.notices.list {
		if n.open() {
			g.unask(n.conn)
		}
	}
	l.notices.list, l.notices.still = nil, time.Time{}
	l.await()
	for _, other := range g.levels {
		other.queue = queue{pick: other.queue.pick} // made anew, with them
	}
}
