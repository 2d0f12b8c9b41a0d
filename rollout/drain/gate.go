package drain

import (
	"crypto/rand"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Gate holds the connections of one instance and lets them go at the pace that
// the control plane orders through Endpoint. Connections come in by Handler,
// Listener or Admit; each connection should pass only one of them. A Gate must
// come from New; all its methods may be called concurrently.
type Gate struct {
	opt  Options
	log  *slog.Logger
	boot string
	born time.Time

	handshakes handshakes
	closeFrame []byte // a WebSocket's goodbye

	mu         sync.Mutex
	held       []*Conn // Conn.at is the index here
	lingering  int     // evicted and not yet ended
	short      line    // requests that end by themselves
	streams    line    // … of gRPC, whose answer has begun
	waker      *time.Timer
	accepted   uint64
	refused    uint64
	evicted    uint64
	asked      int    // held, and asked to come over
	left       uint64 // … that have gone by themselves
	overstayed uint64 // … that were closed at the end of their notice
	returned   uint64
	ticketed   uint64
	counts     bool // the application counts returns
	tickets    bool // … and tickets
	origins    origins

	levels []*level // the last words of the control plane; the first is Rollout's
	own    *level   // the own pace of Shutdown; nil: none

	ending bool // Shutdown was called: never serves again
	grace  grace
	empty  chan struct{} // closed when ending and nothing is held or lingers
}

// New returns a Gate that serves. It starts nothing.
func New(opt Options) *Gate {
	g := &Gate{opt: opt, log: opt.Logger, boot: rand.Text(), born: time.Now(), counts: opt.CountsReturns, tickets: opt.CountsTickets,
		empty: make(chan struct{})}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	g.grace.Gate, g.levels = g, []*level{{gate: g, name: Rollout}}
	g.opt.complete()
	g.closeFrame = g.opt.farewell()
	return g
}

// CloseFrame is what an evicted WebSocket is told, for servers that write frames.
func (g *Gate) CloseFrame() []byte { return slices.Clone(g.closeFrame) }

// RetryAfter and CloseWait are those of the options, or their defaults.
func (g *Gate) RetryAfter() time.Duration { return g.opt.RetryAfter }
func (g *Gate) CloseWait() time.Duration  { return g.opt.CloseWait }

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

// Admit counts a connection in, or refuses it with ErrDraining or ErrFull. When
// the funnel picks it, closing is called once, in its own goroutine; it should
// say goodbye and end the connection within Options.CloseWait. Call Done when the
// connection has ended, whoever ended it: until then it counts, as active or, from
// the call of closing on, as lingering.
func (g *Gate) Admit(closing func()) (*Conn, error) {
	return g.AdmitFrom(nil, closing)
}

// AdmitFrom is Admit for a connection whose other end is known: the remote address of
// the TCP connection below, which Status.Peers counts it under.
func (g *Gate) AdmitFrom(remote net.Addr, closing func()) (*Conn, error) {
	return g.AdmitHooks(Hooks{Close: closing, Remote: remote})
}

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
	// Node is the proxy that it came through, by its node id, as NodeHeader says it. Empty
	// is not known; it is then known by its address.
	Node string
}

// AdmitHooks is Admit for a connection of which more is known.
func (g *Gate) AdmitHooks(h Hooks) (*Conn, error) {
	return g.admit(h.source(), h.asOwner())
}

func (h Hooks) asOwner() owner {
	if h.Ask != nil {
		return &hooked{h.Close, asks{h.Ask}}
	}
	return closeFunc(h.Close)
}

func (h Hooks) source() origin {
	if len(h.Node) > MaxName {
		h.Node = ""
	}
	return origin{machine(h.Remote), h.Node}
}

// Drains reports whether a connection from there would be refused with ErrDraining now.
func (g *Gate) Drains(h Hooks) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refuses(h.source())
}

func (g *Gate) admit(from origin, o owner) (*Conn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.refuse(from); err != nil {
		return nil, err
	}
	return g.add(from, o), nil
}

// add counts a connection in; called with mu held.
func (g *Gate) add(from origin, o owner) *Conn {
	c := &Conn{gate: g, owner: o, origin: g.origins.add(from)}
	c.active.Store(g.clock())
	g.count(c)
	return c
}

// count has the connection be accepted, and held.
func (g *Gate) count(c *Conn) {
	g.accepted++
	g.origins.accept(c)
	c.nth = g.accepted
	g.hold(c)
}

// hold has the connection be one of those that are held.
func (g *Gate) hold(c *Conn) {
	c.at = int32(len(g.held))
	g.held = append(g.held, c)
	for l := range g.covering(c) {
		l.held++
		l.queue.add(c)
	}
}

// Refuses reports why Admit would refuse a connection from there now, and counts it as
// refused then; nil if it would not. For who has to do something before Admit.
func (g *Gate) Refuses(remote net.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refuse(origin{addr: machine(remote)})
}

func (g *Gate) refuse(from origin) (err error) {
	switch {
	case g.refuses(from):
		err = ErrDraining
	case g.opt.Limit > 0 && len(g.held)+g.short.n+g.streams.n >= g.opt.Limit:
		err = ErrFull
	default:
		return nil
	}
	g.refused++
	g.origins.count[g.origins.peers.of(from.addr)].Refused++
	return err
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

// remove has the connection be none of those that are held.
func (g *Gate) remove(c *Conn) {
	for l := range g.covering(c) {
		l.held--
	}
	at, last := int(c.at), len(g.held)-1
	g.held[at] = g.held[last]
	g.held[at].at = int32(at)
	g.held[last] = nil
	g.held = g.held[:last]
}

// letGo takes a connection out: from now on it lingers.
func (g *Gate) letGo(c *Conn) {
	g.remove(c)
	c.at = evicted
	g.linger(c, 1)
	go c.goodbye(c.owner)
}

// linger has n connections more, or fewer, linger that came from where this one did.
func (g *Gate) linger(c *Conn, n int) {
	g.lingering += n
	g.origins.linger(c, n)
	for l := range g.covering(c) {
		l.lingering += n
	}
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

// Status is what the endpoint answers, for the author's own metrics.
func (g *Gate) Status() Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.status()
}

func (g *Gate) status() Status {
	g.ripen(time.Now())
	s := Status{
		State: Serving, Boot: g.boot, Active: len(g.held), Requests: g.short.n + g.streams.n, Lingering: g.lingering,
		Asked: g.asked, Left: g.left, Overstayed: g.overstayed,
		Accepted: g.accepted, Evicted: g.evicted, Refused: g.refused, Limit: g.opt.Limit,
		HandshakeMS: g.handshakes.p99(time.Now()),
		Can:         g.can(), Levels: g.saidLevels(),
		Peers: g.origins.said(),
	}
	told := g.levels[0]
	s.Rollout, s.Epoch, s.Step = told.rollout, told.epoch, told.step
	if g.counts {
		returned := g.returned
		s.Returned = &returned
	}
	if g.tickets {
		ticketed := g.ticketed
		s.Ticketed = &ticketed
	}
	switch {
	case told.ordered && !g.grace.overdue:
		s.Ceiling = clone(told.ceiling)
	case g.grace.overdue || g.ending && !g.ordered():
		var none int
		s.Ceiling = &none
	}
	if g.ending && !g.grace.end.IsZero() {
		left := g.grace.rest(time.Now()).Milliseconds()
		s.GraceMS = &left
	}
	if g.ordered() || g.ending {
		s.State = Draining
		if s.Held() == 0 {
			s.State = Drained
		}
	}
	return s
}
