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
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
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
	// Options are the gate's. CountsReturns and TicketKey are not used: a sidecar knows no
	// returning client, and reads no ticket. CloseWait holds for the server's goodbye as well.
	drain.Options
	// To is where the server listens: host:port, or unix:/run/app.sock.
	To string
	// Mode is Auto by default.
	Mode Mode
	// Proxy is where a PROXY header stands.
	Proxy ProxyProtocol
	// MessageWait is how long a client whose turn has come may take to read the
	// frame that is under way, beyond CloseWait. Default 30s.
	MessageWait time.Duration
	// DialTimeout bounds how long a client waits for a connection to the server.
	// Default 5s.
	DialTimeout time.Duration
}

// Sidecar passes connections on to one server and is their Gate. It must come
// from New; its methods may be called concurrently.
type Sidecar struct {
	*drain.Gate
	opt              Options
	log              *slog.Logger
	dialer           net.Dialer
	network, address string // of the server

	flow     flow
	listener *net.TCPListener // of Serve
	resumed  []*link          // from another process, for Serve

	requests underWay
	looks    chan struct{} // they have become fewer

	unreachable            atomic.Uint64 // of those refused, because of the server
	told, warned, headless logged
}

// logged is when the log last heard of something, Unix ns.
type logged struct{ at atomic.Int64 }

// due: it may hear of it again, once a second.
func (l *logged) due() bool {
	now, last := time.Now().UnixNano(), l.at.Load()
	return now-last >= int64(time.Second) && l.at.CompareAndSwap(last, now)
}

// New returns a Sidecar with a Gate that serves. It starts nothing. The error
// names the option that is wrong.
func New(opt Options) (*Sidecar, error) {
	network, address := "tcp", opt.To
	if path, ok := strings.CutPrefix(opt.To, "unix:"); ok && path != "" {
		network, address = "unix", path
	} else if _, _, err := net.SplitHostPort(opt.To); err != nil {
		return nil, fmt.Errorf("the server's address %q is no host:port and no unix:/path: %w", opt.To, err)
	}
	switch opt.Mode {
	case "":
		opt.Mode = Auto
	case Auto, WebSocket, TCP:
	default:
		return nil, fmt.Errorf("mode %q is unknown; it is %s, %s or %s", opt.Mode, Auto, WebSocket, TCP)
	}
	orDefault(&opt.DialTimeout, 5*time.Second)
	orDefault(&opt.Long, 10*time.Second)
	orDefault(&opt.MessageWait, 30*time.Second)
	opt.CountsReturns, opt.TicketKey = false, ""
	opt.Nodeless = opt.Mode != TCP // of what is not TCP the proxy's name counts, which is in a request
	s := &Sidecar{Gate: drain.New(opt.Options), opt: opt, log: opt.Logger, network: network, address: address, dialer: net.Dialer{Timeout: opt.DialTimeout}, looks: make(chan struct{}, 1)}
	s.flow.init()
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s, nil
}

func orDefault(d *time.Duration, def time.Duration) {
	if *d <= 0 {
		*d = def
	}
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
	run := func(l *link) {
		stop := context.AfterFunc(ctx, l.abort)
		defer stop()
		l.run()
	}
	for _, l := range s.resumed {
		s.flow.join(l)
		running.Go(func() { run(l) })
	}
	s.resumed = nil
	s.flow.mu.Lock()
	s.listener = ln
	s.flow.mu.Unlock()
	for {
		c, err := ln.AcceptTCP()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded): // it is frozen
			s.flow.pause()
			continue
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
		s.flow.count(&s.flow.arriving, 1)
		running.Go(func() {
			if l := s.arrive(ctx, c); l != nil {
				run(l)
			}
		})
	}
}

// arrive connects to the server before it asks the gate, so that only a client
// that was let through counts as accepted; nil is one that was refused.
func (s *Sidecar) arrive(ctx context.Context, c *net.TCPConn) *link {
	l := &link{car: s, client: c}
	err := l.connect(ctx)
	if err == nil {
		s.flow.join(l)
	}
	s.flow.count(&s.flow.arriving, -1)
	switch {
	case err == nil:
		return l
	case errors.Is(err, errNoHeader):
		_ = c.Close()
	default:
		s.refuse(ctx, l, err)
	}
	return nil
}

func (l *link) connect(ctx context.Context) (err error) {
	s, c := l.car, l.client
	var first []byte
	if l.early, first, err = s.opt.Proxy.greeting(c); err != nil {
		if s.headless.due() {
			s.log.Warn("a client was refused", "from", c.RemoteAddr().String(), "err", err)
		}
		return errNoHeader
	}
	if err := s.Refuses(c.RemoteAddr()); err != nil {
		return err
	}
	server, err := s.dialer.DialContext(ctx, s.network, s.address)
	if err == nil && len(first) > 0 {
		if _, err = server.Write(first); err != nil {
			_ = server.Close()
		}
	}
	if err != nil {
		s.isUnreachable(err)
		return errUnreachable
	}
	l.server = server.(conn)
	if s.opt.Mode != TCP {
		l.talk = newDialogue()
		return nil
	}
	if err := l.admit(); err != nil {
		_ = server.Close()
		return err
	}
	return nil
}

// Shutdown is the gate's, and waits for the responses under way as well.
func (s *Sidecar) Shutdown(ctx context.Context) error {
	for {
		if err := s.Gate.Shutdown(ctx); err != nil {
			return err
		}
		if s.Status().State == contract.Drained {
			return nil
		}
		select {
		case <-s.looks:
		case <-ctx.Done():
			return fmt.Errorf("%d requests were left when the grace period ended: %w", s.Requests(), context.Cause(ctx))
		}
	}
}

// look has Shutdown look again.
func (s *Sidecar) look() {
	select {
	case s.looks <- struct{}{}:
	default: // it has not looked since the last time
	}
}

// isUnreachable counts, and tells the log at most once a second.
func (s *Sidecar) isUnreachable(err error) {
	if total := s.unreachable.Add(1); s.told.due() {
		s.log.Warn("the server is unreachable, its clients are refused", "to", s.opt.To, "total", total, "err", err)
	}
}

// isHTTP2 tells the log at most once a second.
func (s *Sidecar) isHTTP2() {
	if s.warned.due() {
		s.log.Warn("a client was refused", "err", errHTTP2)
	}
}
