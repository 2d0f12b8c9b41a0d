package drain

import (
	"io"
	"sync"
	"sync/atomic"

	"github.com/sluice-proxy/sluice/rollout/drain/wsframe"
)

// socket is a WebSocket as the application's library sees it: its writes are
// followed frame by frame, so that the gate can say goodbye between two frames.
type socket struct {
	stream
	leaving atomic.Bool

	mu     sync.Mutex // held while writing
	frames frames
	said   bool // the goodbye has gone out, what follows is dropped
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

// sayGoodbye sends the close frame if nothing is under way; otherwise the Write
// that completes the frame does. An application that has sent its own is not
// interrupted.
func (s *socket) sayGoodbye() {
	if s.said || !s.frames.between() {
		return
	}
	s.said = true
	if !s.frames.Closed() {
		_, _ = s.Conn.Write([]byte(wsframe.ServiceRestart))
	}
}

func (s *socket) Write(p []byte) (int, error) {
	s.conn.Active()
	s.mu.Lock()
	defer s.mu.Unlock()
	written := 0
	for {
		if s.leaving.Load() {
			s.sayGoodbye()
		}
		if s.said {
			return len(p), nil
		}
		rest := p[written:]
		if s.leaving.Load() {
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
			return written, err
		}
	}
}

// ReadFrom must not go around Write.
func (s *socket) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{s}, r)
}
