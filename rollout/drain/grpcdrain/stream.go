// Package grpcdrain has the streams of a grpc-go server take part in a
// drain.Gate, as interceptors. It is a package of its own so that rollout/drain
// brings no dependency.
package grpcdrain

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/drain/ticket"
)

// Stream counts each stream, of whichever kind, as one connection of the gate.
// Use it with grpc.StreamInterceptor or anywhere in a grpc.ChainStreamInterceptor.
//
// While draining, or above the gate's limit, a new stream ends with UNAVAILABLE.
// One that is evicted has its context cancelled with drain.ErrEvicted as the
// cause, and its RecvMsg fails; SendMsg still works, for a last word. It ends for
// the client with UNAVAILABLE when the handler returns, whatever that returns,
// and without it after the gate's CloseWait. Streams of the same connection are
// not touched. With drain.Options.TicketKey it gets a ticket as the trailer sluice-ticket,
// and what a client brings under this name is counted.
//
// Handlers run in a goroutine of their own. One that ignores its context beyond
// CloseWait is left behind: its stream is over, SendMsg and RecvMsg fail, and
// grpc.Server does not wait for it any more. A panic reaches the interceptors
// outside as a *Panic. The message of a failed RecvMsg must not be used again.
//
// After Gate.Shutdown call the server's GracefulStop, not Stop, which would cut off
// the ends of the last streams. Health checks and reflection (grpc.health.*,
// grpc.reflection.*) pass uncounted.
func Stream(g *drain.Gate) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		if passes(info.FullMethod) {
			return handler(srv, ss)
		}
		s := &stream{ServerStream: ss, evicted: make(chan struct{}), receives: info.IsClientStream, outcome: make(chan outcome, 1)}
		ctx, cancel := context.WithCancelCause(ss.Context())
		defer cancel(nil)
		conn, err := g.AdmitHooks(drain.Hooks{
			Close:  func() { cancel(drain.ErrEvicted); close(s.evicted) },
			Remote: remote(ss.Context()), Node: node(ss.Context()), Ticket: said(ss.Context(), ticket.Word),
		})
		if err != nil {
			return refused(g, err)
		}
		s.conn, s.ctx = conn, context.WithValue(ctx, connKey{}, conn)
		go s.run(srv, handler)
		o, ended := s.wait(g.CloseWait())
		picked := conn.Done()
		switch {
		case ended && o.panicked != nil:
			panic(o.panicked)
		case !ended || picked: // whatever the handler has heard of it
			if given := g.Ticket(); given != "" {
				ss.SetTrailer(metadata.Pairs(ticket.Word, given))
			}
			return errEvicted
		}
		return o.err
	}
}

// remote is the other end of the stream's connection; nil when not known.
func remote(ctx context.Context) net.Addr {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr
	}
	return nil
}

// node is the proxy that the stream came through; empty when not known.
func node(ctx context.Context) string { return said(ctx, contract.NodeHeader) }

// said is a word of the call's metadata; empty where it is not there, or twice and not
// the same.
func said(ctx context.Context, word string) string {
	values := metadata.ValueFromIncomingContext(ctx, word)
	if len(slices.Compact(values)) != 1 {
		return ""
	}
	return values[0]
}

type connKey struct{}

// Returned says that the client of the stream with this context, which came
// through Stream, is a returning one: it was connected to this service before.
// Counted once per stream; does nothing for any other context.
func Returned(ctx context.Context) {
	if c, ok := ctx.Value(connKey{}).(*drain.Conn); ok {
		c.Returned()
	}
}

// OnAsk says by which message the client of the stream with this context, which came through
// Stream, is asked to come over; see drain.Hooks. The handler sends it: asking is called in
// a goroutine of its own, and must not call SendMsg beside the handler.
func OnAsk(ctx context.Context, asking func(within time.Duration)) {
	if c, ok := ctx.Value(connKey{}).(*drain.Conn); ok {
		c.OnAsk(asking)
	}
}

// stream is what the handler sees.
type stream struct {
	grpc.ServerStream
	ctx      context.Context
	conn     *drain.Conn
	evicted  chan struct{} // closed when the funnel has picked it
	receives bool          // the client may send more than one message

	state   atomic.Int32 // running, then returned by run or left by wait
	outcome chan outcome // has room for the one that run puts there when it returned
}

const (
	running int32 = iota
	returned
	left // behind by its interceptor
)

// outcome is how a handler ended.
type outcome struct {
	err      error
	panicked *Panic
}

// Panic is a handler's panic, with the stack on which it happened.
type Panic struct {
	Value any
	Stack []byte
}

func (p *Panic) Error() string { return fmt.Sprintf("%v\n\n%s", p.Value, p.Stack) }

// Unwrap is Value, if that is an error.
func (p *Panic) Unwrap() error { err, _ := p.Value.(error); return err }

// run is the goroutine of the handler.
func (s *stream) run(srv any, handler grpc.StreamHandler) {
	o := outcome{err: errors.New("the handler has ended its goroutine")}
	defer func() {
		p := recover()
		if p != nil {
			o.panicked = &Panic{p, debug.Stack()}
		}
		switch {
		case s.state.CompareAndSwap(running, returned):
			s.outcome <- o
		case p != nil:
			panic(o.panicked) // nobody is there to hear of it
		}
	}()
	o.err = handler(srv, s)
}

// wait waits for the handler's end; from an eviction on no longer than patience.
func (s *stream) wait(patience time.Duration) (o outcome, ended bool) {
	select {
	case o := <-s.outcome:
		return o, true
	case <-s.evicted:
	}
	over := time.NewTimer(patience)
	defer over.Stop()
	select {
	case o := <-s.outcome:
		return o, true
	case <-over.C:
		if s.state.CompareAndSwap(running, left) {
			return outcome{}, false
		}
		return <-s.outcome, true
	}
}

func (s *stream) Context() context.Context { return s.ctx }

func (s *stream) SendMsg(m any) error {
	if s.state.Load() == left {
		return errEvicted
	}
	s.conn.Active()
	return s.ServerStream.SendMsg(m)
}

// RecvMsg returns when the stream is evicted, too. grpc's own hears of nothing
// before the stream is over, so it waits in a goroutine, which ends then.
func (s *stream) RecvMsg(m any) error {
	if !s.receives { // one request, which came with the call
		return s.ServerStream.RecvMsg(m)
	}
	select {
	case <-s.evicted:
		return errEvicted
	default:
	}
	got := make(chan error, 1)
	go func() { got <- s.ServerStream.RecvMsg(m) }()
	select {
	case err := <-got:
		s.conn.Active()
		return err
	case <-s.evicted:
		return errEvicted
	}
}
