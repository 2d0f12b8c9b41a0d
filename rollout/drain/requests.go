package drain

import (
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/internal/events"
)

// line is requests that are under way and do not count as lasting, in the order in which
// they came. All fields, and those of a request that stand for its place, belong to
// Gate.mu.
type line struct {
	first, last *request
	n           int
}

func (l *line) add(q *request) {
	q.in, q.before, q.behind = l, l.last, nil
	if l.last != nil {
		l.last.behind = q
	} else {
		l.first = q
	}
	l.last = q
	l.n++
}

func (l *line) remove(q *request) {
	if q.before != nil {
		q.before.behind = q.behind
	} else {
		l.first = q.behind
	}
	if q.behind != nil {
		q.behind.before = q.before
	} else {
		l.last = q.before
	}
	q.in, q.before, q.behind = nil, nil, nil
	l.n--
}

// enter counts a request in, or refuses it. A WebSocket's handshake counts as lasting
// from its beginning; any other request is short until it turns out to last.
func (g *Gate) enter(q *request, from origin) error {
	if q.websocket {
		conn, err := g.admit(from, q, q.brought)
		q.conn = conn
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.refuse(from); err != nil {
		return err
	}
	q.conn = &Conn{gate: g, owner: q, at: short, origin: g.origins.add(from)}
	q.conn.active.Store(g.clock())
	g.short.add(q)
	return nil
}

// requests is how many short ones are under way that the level covers.
func (g *Gate) requests(f from) (n int) {
	if f.everybody() {
		return g.short.n + g.streams.n
	}
	for _, line := range []*line{&g.short, &g.streams} {
		for q := line.first; q != nil; q = q.behind {
			if f.covers(g.origins.of(q.conn)) {
				n++
			}
		}
	}
	return n
}

// lasts says that the request has turned out to last: it counts among the connections
// from now on.
func (c *Conn) lasts() {
	g := c.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.at == short {
		g.last(c)
		g.settle(time.Now())
	}
}

// last counts a short request as a connection; called with mu held.
func (g *Gate) last(c *Conn) {
	q := c.owner.(*request)
	q.in.remove(q)
	g.count(c)
	if c.back {
		g.returned++
	}
	if c.ticket {
		g.ticketed++
	}
	c.bring(q.brought)
}

// streams says that the request is one of gRPC whose answer has begun. It is a stream
// when somebody looks before it has ended: the answer to a single call ends at once.
func (c *Conn) streams() {
	g := c.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if q, ok := c.owner.(*request); ok && c.at == short && q.in == &g.short {
		g.short.remove(q)
		g.streams.add(q)
		if g.drains() {
			g.ripen(time.Now())
		}
	}
}

// ripen counts what has lasted for Options.Long; called with mu held.
func (g *Gate) ripen(now time.Time) {
	before := len(g.held)
	for g.streams.first != nil {
		g.last(g.streams.first.conn)
	}
	for g.short.first != nil && now.Sub(g.short.first.began) >= g.opt.Long {
		g.last(g.short.first.conn)
	}
	if len(g.held) > before {
		g.settle(now)
	}
}

// drains reports whether any order stands, or the gate is shut down.
func (g *Gate) drains() bool {
	for _, l := range g.levels {
		if l.ordered {
			return true
		}
	}
	return g.ending
}

// settle has each level be kept by what came to last while its order stands: what is
// above its ceiling when its step is over goes at the step's own distances. Called with
// mu held.
func (g *Gate) settle(now time.Time) {
	for _, l := range g.levels {
		if l.ordered && l.ceiling != nil {
			l.lower(*l.ceiling, now)
		}
	}
	if g.own != nil {
		g.own.lower(0, now)
	}
}

func (l *level) lower(ceiling int, now time.Time) {
	if n := l.untold() - ceiling; l.funnel == nil && n > 0 {
		l.run(evenly(n, now.Add(l.distance), l.distance*time.Duration(n)), now)
	}
}

// wake has the gate look again when the next short request has lasted long enough, while
// it drains. Called with mu held.
func (g *Gate) wake(now time.Time) {
	if g.waker != nil {
		g.waker.Stop()
	}
	if g.short.first == nil || !g.drains() {
		return
	}
	g.waker = time.AfterFunc(g.short.first.began.Add(g.opt.Long).Sub(now), func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		now := time.Now()
		g.ripen(now)
		g.wake(now)
	})
}

// begins is called before the response's first byte, and when it is flushed.
func (q *request) begins() {
	if q.begun {
		return
	}
	q.begun = true
	if strings.HasPrefix(q.ResponseWriter.Header().Get("Content-Type"), "text/event-stream") {
		q.conn.lasts()
		if h := q.ResponseWriter.Header(); q.conn.gate.book != nil && h.Get("Content-Encoding") == "" && h.Get("Content-Length") == "" {
			q.events = new(events.Tracker)
		}
	}
}

// AdmitLate is AdmitHooks for what was let in before it was known to be a connection
// that lasts, such as a response that does not end: it is held whatever the gate
// does by now, and while it drains it is let go behind those whose turn is set.
func (g *Gate) AdmitLate(h Hooks) *Conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.add(h.source(), h.asOwner())
	c.bring(g.book.Check(h.Ticket, time.Now()))
	g.settle(time.Now())
	return c
}
