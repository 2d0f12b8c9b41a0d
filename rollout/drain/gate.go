// Package drain lets live connections go a few at a time: the instance's side of the
// drain contract, a Gate with wrappers for net/http, net.Listener and servers that own
// their connections. The words and the control plane's side are in the package contract.
// It imports the standard library only, so that an instance can use it without taking
// anything else.
package drain

import (
	"crypto/rand"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/drain/internal/histogram"
	"github.com/sluice-proxy/sluice/rollout/drain/ticket"
	"github.com/sluice-proxy/sluice/rollout/drain/wsframe"
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

	handshakes histogram.Recent
	book       *ticket.Book // nil: no tickets

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
	g.grace.Gate, g.levels = g, []*level{{gate: g, name: contract.Rollout}}
	g.opt.complete()
	if g.book = ticket.New(opt.TicketKey); g.book != nil {
		g.tickets = true
	} else if opt.TicketKey != "" {
		g.log.Error("the key of the tickets is too short, so there are none", "bytes", len(opt.TicketKey), "least", ticket.MinKey)
	}
	return g
}

// CloseFrame is what an evicted WebSocket is told, for servers that write frames. With
// Options.TicketKey it has a ticket of its own each time.
func (g *Gate) CloseFrame() []byte {
	code, reason := g.opt.farewell()
	return wsframe.Goodbye(code, ticket.Behind(reason, g.Ticket()))
}

// Ticket is a new ticket for one client that is let go, for servers that say goodbye in
// their own words, and for the words by which a client is asked to come over. Empty
// without Options.TicketKey.
func (g *Gate) Ticket() string { return g.book.Give(time.Now()) }

// RetryAfter and CloseWait are those of the options, or their defaults.
func (g *Gate) RetryAfter() time.Duration { return g.opt.RetryAfter }
func (g *Gate) CloseWait() time.Duration  { return g.opt.CloseWait }

// Admit counts a connection in, or refuses it with ErrDraining or ErrFull. When
// the funnel picks it, closing is called once, in its own goroutine; it should
// say goodbye and end the connection within Options.CloseWait. Call Done when the
// connection has ended, whoever ended it: until then it counts, as active or, from
// the call of closing on, as lingering.
func (g *Gate) Admit(closing func()) (*Conn, error) {
	return g.AdmitFrom(nil, closing)
}

// AdmitFrom is Admit for a connection whose other end is known: the remote address of
// the TCP connection below, which the status counts it under in peers.
func (g *Gate) AdmitFrom(remote net.Addr, closing func()) (*Conn, error) {
	return g.AdmitHooks(Hooks{Close: closing, Remote: remote})
}

// AdmitHooks is Admit for a connection of which more is known.
func (g *Gate) AdmitHooks(h Hooks) (*Conn, error) {
	return g.admit(h.source(), h.asOwner(), g.book.Check(h.Ticket, time.Now()))
}

// Drains reports whether a connection from there would be refused with ErrDraining now.
func (g *Gate) Drains(h Hooks) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refuses(h.source())
}

func (g *Gate) admit(from origin, o owner, brought ticket.Genuine) (*Conn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.refuse(from); err != nil {
		return nil, err
	}
	c := g.add(from, o)
	c.bring(brought)
	return c, nil
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

// Status is what the endpoint answers, for the author's own metrics.
func (g *Gate) Status() contract.Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.status()
}

func (g *Gate) status() contract.Status {
	g.ripen(time.Now())
	s := contract.Status{
		State: contract.Serving, Boot: g.boot, Active: len(g.held), Requests: g.short.n + g.streams.n, Lingering: g.lingering,
		Asked: g.asked, Left: g.left, Overstayed: g.overstayed,
		Accepted: g.accepted, Evicted: g.evicted, Refused: g.refused, Limit: g.opt.Limit,
		HandshakeMS: g.handshakes.P99(time.Now()),
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
		s.State = contract.Draining
		if s.Held() == 0 {
			s.State = contract.Drained
		}
	}
	return s
}

// Handshake says that admitting a client took so long, from its first byte until
// it was served. Handler says it for connections that are taken over, such as
// WebSockets; servers that own their connections may call it.
func (g *Gate) Handshake(took time.Duration) { g.handshakes.Add(took, time.Now()) }
