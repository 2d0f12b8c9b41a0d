package drain

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/ticket"
)

// Listener wraps the listener of a raw TCP server: while draining or above the
// limit, connections are accepted and closed at once; one that is evicted gets a
// FIN (CloseWrite, where the connection has it) and is closed after CloseWait.
// A TLS server is wrapped, gate.Listener(tls.NewListener(ln, config)): its clients get
// close_notify. Wrapped the other way round its reads end with io.EOF when a connection is
// evicted, and close_notify comes when it closes the connection upon that.
//
// The accepted connections have a method Returned() for servers that know a
// returning client, and CloseWrite, which answers errors.ErrUnsupported where
// the connection below has none.
func (g *Gate) Listener(ln net.Listener) net.Listener {
	return &listener{Listener: ln, gate: g}
}

type listener struct {
	net.Listener
	gate *Gate
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		t := &accepted{stream: stream{Conn: c}}
		if t.conn, err = l.gate.admit(origin{addr: machine(c.RemoteAddr())}, t, ticket.Genuine{}); err != nil {
			_ = c.Close()
			continue
		}
		return t, nil
	}
}

// accepted is a connection of Listener. Where the server speaks TLS above it, its goodbye
// is close_notify, which only the server's tls.Conn can say: its reads end, as if the
// client had left, so that the server closes it.
type accepted struct {
	stream
	kind  atomic.Uint32 // of what the server says; one of those below
	ended atomic.Bool   // the server's reads have ended
}

const (
	unknown uint32 = iota
	plainText
	overTLS
)

func (a *accepted) leave() {
	if a.kind.Load() != overTLS {
		a.stream.leave()
		return
	}
	a.leaving.Store(true)
	a.ended.Store(true)
	_ = a.Conn.SetReadDeadline(time.Unix(1, 0)) // a Read that waits returns
}

func (a *accepted) Read(p []byte) (int, error) {
	if a.ended.Load() && !a.closed.Load() {
		return 0, io.EOF
	}
	n, err := a.stream.Read(p)
	if n == 0 && a.ended.Load() && !a.closed.Load() && !errors.Is(err, errForced) {
		return 0, io.EOF
	}
	return n, err
}

// Write goes on until the server closes: TLS does not survive a write that fails.
func (a *accepted) Write(p []byte) (int, error) {
	if a.kind.Load() == unknown && len(p) > 1 {
		const handshake, version = 0x16, 0x03 // how a server's first record begins
		kind := plainText
		if p[0] == handshake && p[1] == version {
			kind = overTLS
		}
		a.kind.Store(kind)
	}
	return a.stream.Write(p)
}

func (a *accepted) ReadFrom(r io.Reader) (int64, error) {
	a.kind.CompareAndSwap(unknown, plainText)
	return a.stream.ReadFrom(r)
}

// Close follows the server's close_notify with a FIN.
func (a *accepted) Close() error {
	if a.ended.Load() && !a.closed.Load() {
		a.halve()
	}
	return a.stream.Close()
}

func (a *accepted) SetReadDeadline(t time.Time) error {
	if a.ended.Load() {
		return nil
	}
	return a.stream.SetReadDeadline(t)
}

func (a *accepted) SetDeadline(t time.Time) error {
	if a.ended.Load() {
		return a.stream.SetWriteDeadline(t)
	}
	return a.stream.SetDeadline(t)
}
