package sidecar

import (
	"crypto/rand"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/wsframe"
)

// link is one held connection: a client, the server behind, and a goroutine for
// each direction. Bytes pass unchanged until it is told to leave.
type link struct {
	client, server *net.TCPConn
	talk           *dialogue     // nil: bytes only
	wait           time.Duration // for each peer's goodbye
	active         func()        // told when something passes
	leaving        atomic.Bool
	hung           sync.Once

	down sync.Mutex // held while writing to the client
	said bool       // the client has had its goodbye; what the server says is dropped. Belongs to down
	up   sync.Mutex // held while writing to the server
}

// run passes bytes until both directions have ended, with half-closes as they
// are, and closes both sides.
func (l *link) run() {
	var downward sync.WaitGroup
	downward.Go(l.fromServer)
	l.fromClient()
	downward.Wait()
	l.abort()
}

// abort ends both sides now.
func (l *link) abort() {
	_ = l.client.Close()
	_ = l.server.Close()
}

func (l *link) fromClient() {
	for p, err := range chunks(l.client) {
		if err != nil {
			l.hangUp()
			return
		}
		l.active()
		if l.toServer(p) != nil {
			return // fromServer passes on what the server still said, and its end
		}
		if l.leaving.Load() && l.talk != nil && l.talk.clientClosed() {
			l.down.Lock()
			if l.said {
				_ = l.client.CloseWrite()
			}
			l.down.Unlock()
		}
	}
	_ = l.server.CloseWrite()
}

func (l *link) toServer(p []byte) error {
	l.up.Lock()
	defer l.up.Unlock()
	if l.talk != nil {
		l.talk.client(p)
	}
	_, err := l.server.Write(p)
	return err
}

func (l *link) fromServer() {
	for p, err := range chunks(l.server) {
		if err != nil {
			_ = l.client.Close()
			return
		}
		l.active()
		if l.toClient(p) != nil {
			l.hangUp()
		}
	}
	_ = l.client.CloseWrite()
}

// toClient writes p, or when the link is to leave as much of it as completes what
// is under way, and then the goodbye.
func (l *link) toClient(p []byte) error {
	l.down.Lock()
	defer l.down.Unlock()
	if l.said {
		return nil
	}
	end := len(p)
	if l.talk != nil {
		for end = 0; end < len(p); {
			end += l.talk.server(p[end:])
			if l.leaving.Load() && l.talk.chooseFarewell() != later {
				break
			}
		}
	}
	if _, err := l.client.Write(p[:end]); err != nil {
		l.said = true
		return err
	}
	if l.leaving.Load() {
		l.sayFarewell()
	}
	return nil
}

// leave is told by the gate: the connection is evicted. The client is told as
// soon as nothing is under way, and what it says goes on to the server until it
// ends or the time is up.
func (l *link) leave() {
	time.AfterFunc(l.wait, l.hangUp)
	l.leaving.Store(true)
	l.down.Lock()
	defer l.down.Unlock()
	l.sayFarewell()
}

// sayFarewell tells the client if it can be told now; called with down held.
func (l *link) sayFarewell() {
	if l.said {
		return
	}
	way := byFIN
	if l.talk != nil {
		way = l.talk.chooseFarewell()
	}
	if way == later {
		return
	}
	l.said = true
	if way == byFrame {
		_, _ = l.client.Write([]byte(wsframe.ServiceRestart))
	}
	if way == byFIN || l.talk.clientClosed() {
		_ = l.client.CloseWrite()
	}
}

// hangUp ends the client's side now, and has the server end its own: it is sent
// what a client sends that leaves, and given as long as a client to answer.
func (l *link) hangUp() {
	l.hung.Do(func() {
		if l.down.TryLock() {
			l.said = true
			l.down.Unlock()
		} else {
			// A write is stuck: what the client does not read need not be kept for it.
			_ = l.client.SetLinger(0)
		}
		_ = l.client.Close()
		_ = l.server.SetDeadline(time.Now().Add(l.wait))
	})
	if !l.up.TryLock() {
		return // fromClient is writing; it comes here when it finds the client gone
	}
	defer l.up.Unlock()
	if l.leaving.Load() && l.talk != nil && l.talk.serverCanBeTold() {
		frame := maskedGoodbye()
		l.talk.client(frame)
		_, _ = l.server.Write(frame)
	}
	_ = l.server.CloseWrite()
}

// maskedGoodbye is a client's close frame with status 1001, "going away".
func maskedGoodbye() []byte {
	var key [4]byte
	_, _ = rand.Read(key[:])
	return wsframe.Append(nil, wsframe.Final|wsframe.Close, &key, []byte{1001 >> 8, 1001 & 0xff})
}
