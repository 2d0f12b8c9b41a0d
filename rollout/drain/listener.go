package drain

import (
	"io"
	"net"
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
		if t.conn, err = l.gate.admit(origin{addr: machine(c.RemoteAddr())}, t); err != nil {
			_ = c.Close()
			continue
		}
		return t, nil
	}
}

func (s *stream) ReadFrom(r io.Reader) (int64, error) {
	n, err := s.copy(s.Conn, r)
	return n, s.told(err)
}

func (s *stream) WriteTo(w io.Writer) (int64, error) {
	s.reading.Lock()
	n, err := s.copy(w, s.Conn)
	s.reading.Unlock()
	return n, s.told(err)
}

const (
	bufferSize = 4 << 10   // bytes
	spliceSize = 128 << 10 // bytes
)

// copy passes bytes on and notes the connection as active with each buffer of them.
// After a full buffer it splices: up to spliceSize bytes pass by the short way of
// the connection below (sendfile, splice), without a note.
func (s *stream) copy(w io.Writer, r io.Reader) (n int64, err error) {
	b := make([]byte, bufferSize)
	for {
		read, end := r.Read(b)
		s.conn.Active()
		written, err := w.Write(b[:read])
		n += int64(written)
		if err != nil {
			return n, err
		}
		if end == nil && read == bufferSize {
			var spliced int64
			spliced, end = splice(w, r)
			n += spliced
		}
		switch {
		case end == io.EOF:
			return n, nil
		case end != nil:
			return n, end
		}
	}
}

// splice copies at most spliceSize bytes. The short ways see through one
// LimitedReader only.
func splice(w io.Writer, r io.Reader) (int64, error) {
	most := &io.LimitedReader{R: r, N: spliceSize}
	outer, limited := r.(*io.LimitedReader)
	if limited {
		most.R, most.N = outer.R, min(outer.N, spliceSize)
	}
	n, err := io.Copy(w, most)
	if limited {
		outer.N -= n
	}
	return n, err
}
