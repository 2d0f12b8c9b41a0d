package drain

import (
	"cmp"
	"log/slog"
	"net/http"
	"time"
)

// Options configure a Gate. The zero value is ready to use: no limit, an own
// pace of 100 per second, an endpoint for loopback only.
type Options struct {
	// Limit is the most connections held at once, requests among them; above it new
	// ones are refused.
	// 0 is no limit.
	Limit int
	// Close per Every is the pace of Shutdown without orders. Default 100 per 1s.
	Close int
	Every time.Duration
	// Long is how long a request is under way before it counts among the connections, and
	// may be let go; a shorter one ends by itself. Upgraded connections, answers of
	// text/event-stream and streams of gRPC and Connect count from their beginning.
	// Default 10s.
	Long time.Duration
	// RetryAfter is what refused HTTP clients are told to wait, in whole seconds
	// rounded up. Default 1s.
	RetryAfter time.Duration
	// CloseWait is how long an evicted connection waits for the peer's goodbye
	// before it is ended. What goes on nevertheless counts as lingering. Default 1s.
	CloseWait time.Duration
	// CloseCode is the status of the close frame that an evicted WebSocket gets, and
	// CloseReason the text behind it, at most 112 bytes. Default 1012, "service restart".
	// Clients that do not know 1012 (.NET before 8, Netty, Starscream) are told 1001.
	CloseCode   int
	CloseReason string
	// RefuseByClose has Handler accept a WebSocket that it refuses and close it with 1013,
	// "try again later", in place of 503: for clients that give up after a 503. It counts as
	// refused all the same. Not together with session affinity, to which 101 is a home.
	RefuseByClose bool
	// Pass names requests that Handler serves whatever the gate does, and counts
	// nowhere, such as health checks: they end no client's connection. Default: none.
	Pass func(*http.Request) bool
	// Token guards Endpoint as a bearer token. Without one the endpoint answers
	// only direct requests from loopback.
	Token string
	// CountsReturns says that the application calls Returned, so that the status
	// reports 0 and not null before the first returning client.
	CountsReturns bool
	// CountsTickets says that the application calls Conn.Ticketed, so that the status
	// reports ticketed from the beginning.
	CountsTickets bool
	// TicketKey has the gate give a ticket with each goodbye, and count the clients that bring
	// one: a secret that all instances of the service share, and no other service, random
	// and at least 16 bytes long; with a shorter one there are no tickets. See the package
	// ticket for what a ticket proves, and set it only where the clients bring theirs back:
	// the control plane waits for each that was let go to bring one. Default: none.
	TicketKey string
	// Notice above 0 says that the application asks its clients to come over (Hooks.Ask,
	// OnAsk), so that an order may give them notice. It is what Shutdown gives them without
	// an order.
	Notice time.Duration
	// Nodeless says that the server never learns through which proxy a connection came, as
	// one that passes bytes on: orders that cover the connections of some nodes only are
	// then refused.
	Nodeless bool
	// Logger is told about orders and shutdown; nil logs nothing.
	Logger *slog.Logger
}

// complete sets the defaults.
func (o *Options) complete() {
	orDefault(&o.Close, 100)
	orDefault(&o.Every, time.Second)
	orDefault(&o.RetryAfter, time.Second)
	orDefault(&o.CloseWait, time.Second)
	orDefault(&o.Long, 10*time.Second)
	o.Limit = max(o.Limit, 0)
}

func orDefault[T int | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// farewell is what the close frame says, before a ticket. 1005, 1006 and 1015 must not be sent (RFC 6455, 7.4.1).
func (o Options) farewell() (code uint16, reason string) {
	const mostReason = 112 // bytes, so that a ticket fits behind it
	reason = o.CloseReason[:min(len(o.CloseReason), mostReason)]
	switch code := o.CloseCode; {
	case code < 1000 || code > 4999 || code == 1005 || code == 1006 || code == 1015:
		return 1012, cmp.Or(reason, "service restart")
	default:
		return uint16(code), reason
	}
}
