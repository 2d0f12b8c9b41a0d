package drain

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Errors of connections that were let go.
var (
	// ErrEvicted is the cause (context.Cause) of the context of a plain or
	// streaming request that the funnel ends, and wrapped by the error of what is
	// written after a goodbye.
	ErrEvicted = errors.New("evicted: the instance lets its connections go")
	errGoodbye = fmt.Errorf("write after the goodbye: %w", ErrEvicted)
	errForced  = fmt.Errorf("%w, and ended after CloseWait: %w", ErrEvicted, net.ErrClosed)
)

// stream is a connection without a goodbye of its own.
type stream struct {
	net.Conn
	asks
	conn *Conn

	leaving   atomic.Bool // it was told to go
	halved    atomic.Bool // … and has its FIN
	forced    atomic.Bool // … and ended after CloseWait
	closed    atomic.Bool // the application has closed it while it was leaving
	forgotten atomic.Bool // its handler has returned
	failed    atomic.Bool // its peer has gone
	reading   sync.Mutex  // held while the application reads
}

func (s *stream) leave() {
	s.leaving.Store(true)
	s.halve()
}

func (s *stream) halve() {
	if s.CloseWrite() == nil {
		s.halved.Store(true)
	}
}

func (s *stream) force() (over bool) {
	s.forced.Store(true)
	_ = s.Conn.Close()
	return true
}

func (s *stream) Read(p []byte) (int, error) {
	if s.closed.Load() {
		return 0, net.ErrClosed
	}
	s.reading.Lock()
	n, err := s.Conn.Read(p)
	s.reading.Unlock()
	s.conn.Active()
	return n, s.ended(err)
}

func (s *stream) Write(p []byte) (int, error) {
	s.conn.Active()
	n, err := s.Conn.Write(p)
	return n, s.ended(err)
}

// ended is an error of the connection as the application should see it. One that is
// no deadline and no half-close says that the peer has gone.
func (s *stream) ended(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if !isTimeout(err) {
		s.gone()
	}
	return s.told(err)
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// told is an error that says why, if the connection was told to go.
func (s *stream) told(err error) error {
	switch {
	case err == nil || err == io.EOF || !s.leaving.Load():
		return err
	case s.closed.Load():
		return net.ErrClosed
	case s.forced.Load():
		return errForced
	case isTimeout(err):
		return err
	}
	return fmt.Errorf("%w: %w", ErrEvicted, err)
}

// gone says that the peer has gone, and forget that the handler has returned: after
// both nobody is there who would close the connection.
func (s *stream) gone() {
	s.failed.Store(true)
	if s.forgotten.Load() {
		_ = s.Close()
	}
}

func (s *stream) forget() {
	s.forgotten.Store(true)
	if s.failed.Load() {
		_ = s.Close()
	}
}

// Close ends the connection. One that has its FIN is read to its peer's within
// CloseWait: closing with bytes unread would take the goodbye back.
func (s *stream) Close() error {
	if !s.halved.Load() || s.forced.Load() || s.failed.Load() {
		s.conn.Done()
		return s.Conn.Close()
	}
	if s.closed.Swap(true) {
		return net.ErrClosed
	}
	_ = s.Conn.SetDeadline(time.Unix(1, 0)) // what the application waits for returns
	go s.hearOut()                          // force ends it at the latest
	return nil
}

func (s *stream) hearOut() {
	s.reading.Lock()
	_ = s.Conn.SetReadDeadline(time.Time{})
	_, _ = io.Copy(io.Discard, s.Conn)
	s.reading.Unlock()
	_ = s.Conn.Close()
	s.conn.Done()
}

// Deadlines of the application's do not reach a connection that is not its any more.
func (s *stream) SetDeadline(t time.Time) error      { return s.set(s.Conn.SetDeadline, t) }
func (s *stream) SetReadDeadline(t time.Time) error  { return s.set(s.Conn.SetReadDeadline, t) }
func (s *stream) SetWriteDeadline(t time.Time) error { return s.set(s.Conn.SetWriteDeadline, t) }

func (s *stream) set(deadline func(time.Time) error, t time.Time) error {
	switch {
	case s.forced.Load():
		return errForced
	case s.closed.Load():
		return net.ErrClosed
	}
	return deadline(t)
}

// Returned is Conn.Returned.
func (s *stream) Returned() { s.conn.Returned() }

// CloseWrite sends a FIN.
func (s *stream) CloseWrite() error { return closeWrite(s.Conn) }

func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
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
