// Package sidecar lets the connections of a server go that cannot be changed: it
// stands in front of it, passes bytes, and speaks the drain contract. A WebSocket
// is let go with a close frame between two frames, anything else with a FIN.
package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain"
)

// Mode is how much of what passes the sidecar looks at.
type Mode string

const (
	// Auto: a client that asks for a WebSocket (HTTP/1.1 Upgrade) has one, anything
	// else is TCP. A refused client that says nothing is closed after 250 ms.
	Auto Mode = "auto"
	// WebSocket: all clients speak HTTP/1. As Auto, but a refused one has 5 s to
	// send its request.
	WebSocket Mode = "websocket"
	// TCP: nothing is looked at.
	TCP Mode = "tcp"
)

// Options configure a Sidecar; To must be set.
type Options struct {
	// Options are the gate's. CountsReturns is not used: a sidecar cannot know a
	// returning client. CloseWait holds for the server's goodbye as well.
	drain.Options
	// To is the server's TCP address, host:port.
	To string
	// Mode is Auto by default.
	Mode Mode
	// DialTimeout bounds how long a client waits for a connection to the server.
	// Default 5s.
	DialTimeout time.Duration
}

// Sidecar passes connections on to one server and is their Gate. It must come
// from New; its methods may be called concurrently.
type Sidecar struct {
	*drain.Gate
	opt    Options
	log    *slog.Logger
	dialer net.Dialer

	unreachable atomic.Uint64 // of those, because of the server
	toldAt      atomic.Int64  // when the log last heard of that, Unix ns
}

// New returns a Sidecar with a Gate that serves. It starts nothing. The error
// names the option that is wrong.
func New(opt Options) (*Sidecar, error) {
	if _, _, err := net.SplitHostPort(opt.To); err != nil {
		return nil, fmt.Errorf("the server's address %q is no host:port: %w", opt.To, err)
	}
	switch opt.Mode {
	case "":
		opt.Mode = Auto
	case Auto, WebSocket, TCP:
	default:
		return nil, fmt.Errorf("mode %q is unknown; it is %s, %s or %s", opt.Mode, Auto, WebSocket, TCP)
	}
	if opt.DialTimeout <= 0 {
		opt.DialTimeout = 5 * time.Second
	}
	opt.CountsReturns = false
	opt.Nodeless = opt.Mode != TCP // of what is not TCP the proxy's name counts, which is in a request
	s := &Sidecar{Gate: drain.New(opt.Options), opt: opt, log: opt.Logger, dialer: net.Dialer{Timeout: opt.DialTimeout}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s, nil
}

// Serve accepts connections from ln until ctx ends, which ends every connection
// at once; Shutdown before that lets them go at its pace. It closes ln, waits for
// all it started, and returns an error only if ln is closed by somebody else.
func (s *Sidecar) Serve(ctx context.Context, ln *net.TCPListener) error {
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	const shortest, longest = 5 * time.Millisecond, time.Second
	pause := shortest
	for {
		c, err := ln.AcceptTCP()
		switch {
		case ctx.Err() != nil:
			if c != nil {
				_ = c.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept: %w", err)
		case err != nil: // such as too many open files: it passes
			s.log.Warn("accepting is paused", "err", err, "pause", pause)
			select {
			case <-time.After(pause/2 + rand.N(pause/2)):
			case <-ctx.Done():
			}
			pause = min(2*pause, longest)
			continue
		}
		pause = shortest
		running.Go(func() { s.serve(ctx, c) })
	}
}

// serve connects to the server before it asks the gate, so that only a client
// that was let through counts as accepted.
func (s *Sidecar) serve(ctx context.Context, c *net.TCPConn) {
	if err := s.Refuses(c.RemoteAddr()); err != nil {
		s.refuse(ctx, c, err)
		return
	}
	server, err := s.dialer.DialContext(ctx, "tcp", s.opt.To)
	if err != nil {
		s.isUnreachable(err)
		s.refuse(ctx, c, errUnreachable)
		return
	}
	l := &link{client: c, server: server.(*net.TCPConn), wait: s.CloseWait()}
	if s.opt.Mode != TCP {
		l.talk = newDialogue(s.Handshake)
	}
	held, err := s.AdmitFrom(c.RemoteAddr(), l.leave)
	if err != nil {
		_ = server.Close()
		s.refuse(ctx, c, err)
		return
	}
	defer held.Done()
	l.active = held.Active
	stop := context.AfterFunc(ctx, l.abort)
	defer stop()
	l.run()
}

// isUnreachable counts, and tells the log at most once a second.
func (s *Sidecar) isUnreachable(err error) {
	total := s.unreachable.Add(1)
	now, last := time.Now().UnixNano(), s.toldAt.Load()
	if now-last >= int64(time.Second) && s.toldAt.CompareAndSwap(last, now) {
		s.log.Warn("the server is unreachable, its clients are refused", "to", s.opt.To, "total", total, "err", err)
	}
}
