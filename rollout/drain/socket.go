package drain

import (
	"io"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/wsframe"
)

// socket is a WebSocket as the application's library sees it: its writes are
// followed frame by frame, so that the gate can say goodbye between two messages.
type socket struct {
	stream

	mu     sync.Mutex // held while writing
	frames frames
	said   bool // the goodbye has gone out, nothing may follow
	hurry  bool // CloseWait has passed: between two frames will do. Belongs to mu
}

// leave may wait for a write that is under way; force ends that wait.
func (s *socket) leave() {
	s.leaving.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.frames.part == notFrames {
		_ = s.CloseWrite()
		return
	}
	s.sayGoodbye()
}

// force gives a client whose message did not end within CloseWait its goodbye within
// the message, and as long again to answer. Within a frame there is no room for one.
func (s *socket) force() (over bool) {
	if s.mu.TryLock() {
		said := s.said
		s.hurry = true
		s.sayGoodbye()
		late := s.said && !said
		s.mu.Unlock()
		if late {
			time.AfterFunc(s.conn.gate.opt.CloseWait, func() {
				s.stream.force()
				s.conn.Done()
			})
			return false
		}
	}
	return s.stream.force()
}

// sayGoodbye sends the close frame if nothing is under way; otherwise the Write
// that completes the message does. An application that has sent its own is not
// interrupted.
func (s *socket) sayGoodbye() {
	if s.said || !s.frames.between() || !s.hurry && s.frames.InMessage() {
		return
	}
	s.said = true
	if !s.frames.Closed() {
		_, _ = s.Conn.Write(s.conn.gate.CloseFrame())
	}
}

// Write fails once the goodbye has gone out.
func (s *socket) Write(p []byte) (int, error) {
	s.conn.Active()
	s.mu.Lock()
	defer s.mu.Unlock()
	written := 0
	for {
		leaving := s.leaving.Load()
		if leaving {
			s.sayGoodbye()
		}
		switch {
		case s.forced.Load():
			return written, errForced
		case s.said:
			return written, errGoodbye
		}
		rest := p[written:]
		if leaving {
			ahead := s.frames
			rest = rest[:ahead.next(rest)]
		}
		n, err := s.Conn.Write(rest)
		s.frames.follow(rest[:n])
		written += n
		if err != nil || written == len(p) {
			if s.leaving.Load() {
				s.sayGoodbye()
			}
			return written, s.ended(err)
		}
	}
}

// Read takes the peer's end for what it is: no WebSocket lives on half.
func (s *socket) Read(p []byte) (int, error) {
	n, err := s.stream.Read(p)
	if err == io.EOF {
		s.gone()
	}
	return n, err
}

// Close has a client that is being let go read its goodbye first.
func (s *socket) Close() error {
	if s.leaving.Load() && s.mu.TryLock() {
		s.hurry = true
		s.sayGoodbye()
		if s.said {
			s.halve()
		}
		s.mu.Unlock()
	}
	return s.stream.Close()
}

// ReadFrom must not go around Write.
func (s *socket) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{s}, r)
}

// frames follows what a server writes to an upgraded connection, in whatever
// pieces: the HTTP response head, and behind it frames of a WebSocket, between
// which a frame of our own can stand. A library that writes its head elsewhere
// starts with skipHead.
type frames struct {
	wsframe.Tracker // behind the head
	part            part
	have            uint8 // bytes of the status line seen
	blank           uint8 // how much of "\r\n\r\n" the head ends in
}

type part uint8

const (
	inHead    part = iota // in the HTTP response head
	inFrames              // behind it
	notFrames             // the response was not 101: whatever follows is no frame
)

func (f *frames) skipHead() { f.part = inFrames }

// between: nothing is under way, a frame may be put here.
func (f *frames) between() bool { return f.part == inFrames && f.Between() }

// next takes the bytes of p up to the end of the head or frame that is under
// way, at most all of them, and says how many they are: at least one if p has one.
func (f *frames) next(p []byte) int {
	switch f.part {
	case notFrames:
		return len(p)
	case inFrames:
		return f.Next(p)
	}
	for i, b := range p {
		f.head(b)
		switch f.part {
		case notFrames:
			return len(p)
		case inFrames:
			return i + 1
		}
	}
	return len(p)
}

// follow takes all of p.
func (f *frames) follow(p []byte) {
	for len(p) > 0 {
		p = p[f.next(p):]
	}
}

// head takes one byte of the response head: "HTTP/1.1 101 …", up to an empty line.
func (f *frames) head(b byte) {
	const status = "HTTP/1.1 101"
	if int(f.have) < len(status) {
		if b != status[f.have] {
			f.part = notFrames
			return
		}
		f.have++
		return
	}
	switch {
	case b == "\r\n\r\n"[f.blank]:
		f.blank++
	case b == '\r':
		f.blank = 1
	default:
		f.blank = 0
	}
	if f.blank == 4 {
		f.part = inFrames
	}
}
