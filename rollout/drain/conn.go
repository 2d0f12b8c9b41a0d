package drain

import (
	"net"
	"sync/atomic"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/drain/ticket"
)

// Conn is one admitted connection of a server that owns its connections.
type Conn struct {
	gate   *Gate
	owner  owner         // replaced under gate.mu only
	nth    uint64        // of all that were admitted
	active atomic.Uint32 // when it last was, by gate.clock
	at     int32         // index in gate.held, or one of those below
	back   bool          // counted as returned
	ticket bool          // counted as ticketed
	asked  bool          // to come over, and held
	told   bool          // counted as evicted
	origin uint16        // index in gate.origins, until it has ended
}

// Values of Conn.at beside an index.
const (
	evicted = -1 // picked, and not yet ended
	gone    = -2 // ended by itself
	letGo   = -3 // ended after it was picked
	short   = -4 // a request that does not count as lasting
)

// owner ends a connection. Both are called without a lock held, at most once
// each, and possibly after the connection has ended by itself.
type owner interface {
	leave() // say goodbye in the protocol's own way; may block
	// force ends it now, as CloseWait has passed, and reports whether nothing is left
	// of it; otherwise it lingers until Done.
	force() (over bool)
}

type closeFunc func()

func (f closeFunc) leave()      { f() }
func (f closeFunc) force() bool { return false }

// Hooks are how a server that owns its connections lets one of them go, and where it
// came from.
type Hooks struct {
	// Close is called once when the funnel picks the connection, in its own goroutine; see
	// Admit.
	Close func()
	// Ask is called at most once in a rollout, in its own goroutine and before Close: it should
	// tell the client to come over, by opening a new connection before it ends this one,
	// which works on as before. Close is called when it has not gone within the notice, or
	// later where the control plane pauses, and not at all if the order is taken back. Nil: the client is let go without being asked.
	Ask func(within time.Duration)
	// Remote is the remote address of the TCP connection below; nil is not known.
	Remote net.Addr
	// Ticket is what the client brought, whatever that is; empty: nothing. See
	// Options.TicketKey.
	Ticket string
	// Node is the proxy that it came through, by its node id, as contract.NodeHeader says it. Empty
	// is not known; it is then known by its address.
	Node string
}

func (h Hooks) asOwner() owner {
	if h.Ask != nil {
		return &hooked{h.Close, asks{h.Ask}}
	}
	return closeFunc(h.Close)
}

func (h Hooks) source() origin {
	if len(h.Node) > contract.MaxName {
		h.Node = ""
	}
	return origin{machine(h.Remote), h.Node}
}

// Done says that the connection has ended, and reports whether the funnel had
// picked it. Calling it again changes nothing.
func (c *Conn) Done() (picked bool) {
	g := c.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case c.at >= 0:
		if c.asked {
			g.unask(c)
			g.left++
		}
		g.remove(c)
		g.origins.remove(c)
		c.at, c.owner = gone, nil // a queue may know it for longer
	case c.at == short:
		q := c.owner.(*request)
		q.in.remove(q)
		g.origins.remove(c)
		c.at = gone
	case c.at == evicted:
		g.linger(c, -1)
		g.origins.remove(c)
		c.at = letGo
	}
	g.checkEmpty()
	return c.at == letGo
}

// Returned says that the client at the other end is a returning one: it was
// connected to this service before. Counted once per connection, and for a request not
// before it lasts.
func (c *Conn) Returned() {
	g := c.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counts = true
	if !c.back {
		c.back = true
		if c.at != short {
			g.returned++
		}
	}
}

// Ticketed says that the client at the other end brought the ticket that its goodbye
// gave it, and that nobody brought this ticket before. Counted once per connection.
// Unlike a returning client it was certainly let go.
func (c *Conn) Ticketed() {
	g := c.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tickets = true
	if !c.ticket {
		c.ticket = true
		if c.at != short {
			g.ticketed++
		}
	}
}

// bring counts the connection as ticketed if its client brought a ticket that nobody
// brought before; called with mu held, when it is accepted.
func (c *Conn) bring(t ticket.Genuine) {
	if g := c.gate; !c.ticket && g.book.Take(t) {
		c.ticket = true
		g.ticketed++
	}
}

// handOver gives the connection a new owner and reports whether it was evicted
// before that, so that its new owner has not been told to leave.
func (c *Conn) handOver(o owner) (late bool) {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	if c.at == short {
		c.gate.last(c)
		c.gate.settle(time.Now())
	}
	if from, ok := c.owner.(*request); ok {
		if to, ok := o.(interface{ onAsk(func(time.Duration)) }); ok {
			to.onAsk(from.asking)
		}
	}
	c.owner = o
	return c.at == evicted
}

// goodbye lets an evicted connection leave, and ends it if it has not gone
// after CloseWait.
func (c *Conn) goodbye(o owner) {
	time.AfterFunc(c.gate.opt.CloseWait, func() {
		if o.force() {
			c.Done()
		}
	})
	o.leave()
}
