package sidecar

import (
	"crypto/rand"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/wsframe"
)

// conn is a connection that ends one direction at a time: TCP, or a Unix socket.
type conn interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

// link is one connection: a client, the server behind, and a goroutine for each
// direction. Bytes pass unchanged until it is told to leave or a request on it is
// refused. Who holds up takes down after it, never the other way round.
type link struct {
	car            *Sidecar
	client, server conn
	talk           *dialogue // nil: bytes only
	early          []byte    // what has come of the client before it was a link

	held    atomic.Pointer[drain.Conn] // while it is a connection that lasts
	leaving atomic.Bool
	hasty   atomic.Bool // CloseWait has passed: the end of a frame is enough

	mu    sync.Mutex
	hung  bool        // the client's side is closed
	busy  bool        // counted in car.requests
	since time.Time   // … and since when
	ended bool        // not counted any more
	long  *time.Timer // until the response under way is one that lasts

	down    sync.Mutex // held while writing to the client
	said    bool       // it has had its last word; what the server says is dropped
	refusal error      // why the request that has begun is not passed on
	refused bool       // its head is complete, so that it can be answered

	up   sync.Mutex // held while writing to the server
	over bool       // nothing more is passed to it

	toClientRest, toServerRest []byte // what a freeze left over; belong to down and up
}

// run passes bytes until both directions have ended, with half-closes as they
// are, and closes both sides. It has joined the flow.
func (l *link) run() {
	f := &l.car.flow
	defer f.part(l)
	l.flush(&l.down, l.client, &l.toClientRest)
	l.flush(&l.up, l.server, &l.toServerRest)
	var downward sync.WaitGroup
	f.count(&f.running, 1)
	downward.Go(func() {
		defer f.count(&f.running, -1)
		l.fromServer()
	})
	l.fromClient()
	f.count(&f.standing, 1)
	downward.Wait()
	f.count(&f.standing, -1)
	l.abort()
	l.end()
}

// abort ends both sides now.
func (l *link) abort() {
	_ = l.client.Close()
	_ = l.server.Close()
}

func (l *link) fromClient() {
	if len(l.early) > 0 && l.toServer(l.early) != nil {
		return
	}
	l.early = nil
	for p, err := range l.pieces(l.client) {
		if err != nil {
			l.hangUp()
			return
		}
		l.active()
		if l.toServer(p) != nil {
			return // fromServer passes on what the server still said, and its end
		}
	}
	l.up.Lock()
	defer l.up.Unlock()
	l.tellServer()
	_ = l.server.CloseWrite()
}

// toServer passes on what may pass of p.
func (l *link) toServer(p []byte) error {
	l.up.Lock()
	defer l.up.Unlock()
	pass, t := len(p), onward
	if l.talk != nil {
		pass, t = l.hear(p)
	} else if l.over {
		pass = 0
	}
	if pass > 0 {
		if err := l.send(l.server, &l.toServerRest, p[:pass]); err != nil {
			return err
		}
	}
	switch t {
	case answered:
		l.tellServer()
		l.down.Lock()
		_ = l.client.CloseWrite()
		l.down.Unlock()
	case raw:
		l.finish(nil)
	case http2:
		l.finish(goAway(errHTTP2))
	}
	if l.leaving.Load() && l.talk != nil && l.talk.clientClosed() {
		l.down.Lock()
		if l.said {
			_ = l.client.CloseWrite()
		}
		l.down.Unlock()
	}
	return nil
}

// hear follows what the client said, and says how much of it may pass and whether
// something ends it there.
func (l *link) hear(p []byte) (pass int, end turn) {
	for at := 0; at < len(p); {
		n, t := l.talk.client(p[at:])
		at += n
		if !l.over {
			pass = at
		}
		switch t {
		case begins:
			if !l.over {
				l.over = !l.begin()
			}
		case asks:
			if l.over {
				l.down.Lock()
				l.refused = true
				l.sayRefusal()
				l.down.Unlock()
			}
		case raw:
			l.idle()
			if l.over || l.admit() != nil {
				l.over = true
				return 0, raw
			}
		case http2:
			l.idle()
			l.over = true
			l.car.isHTTP2()
			return 0, http2
		case answered:
			if l.over {
				return 0, onward
			}
			l.over = true
			return pass, answered
		}
	}
	return pass, onward
}

func (l *link) fromServer() {
	for p, err := range l.pieces(l.server) {
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
// is under way, and then the last word.
func (l *link) toClient(p []byte) error {
	l.down.Lock()
	defer l.down.Unlock()
	if l.said {
		return nil
	}
	end, refused := len(p), error(nil)
	if l.talk != nil {
		end, refused = l.answer(p)
	}
	if err := l.send(l.client, &l.toClientRest, p[:end]); err != nil {
		l.said = true
		return err
	}
	switch {
	case refused != nil:
		l.lastWord(l.car.answer(refusal{why: refused, seen: true}))
	case l.leaving.Load():
		l.sayFarewell()
	case l.refusal != nil:
		l.sayRefusal()
	}
	return nil
}

// answer follows what the server said, and says how much of it passes. Where a
// connection that lasts begins with it and the gate refuses that, it is nothing of
// it; if something of it has passed before, it is let in all the same.
func (l *link) answer(p []byte) (pass int, refused error) {
	if !l.leaving.Load() && l.talk.frames(p) {
		return len(p), nil
	}
	split := l.talk.midResponse()
	for at := 0; at < len(p); {
		n, t := l.talk.server(p[at:])
		switch t {
		case opens, streams, raw:
			if err := l.admit(); err != nil {
				if t != raw && (at > 0 || !split) {
					return at, err
				}
				l.hold(l.car.AdmitLate(drain.Hooks{Close: l.leave, Remote: l.client.RemoteAddr()}))
			}
			l.idle()
			if t == opens {
				l.car.Handshake(time.Since(l.talk.askedAt()))
			} else if t == streams {
				l.talk.lasts()
			}
		case rests:
			l.rest()
		}
		at += n
		if l.leaving.Load() && l.talk.chooseFarewell(!l.hasty.Load()) != later || t == rests && l.refusal != nil {
			return at, nil
		}
	}
	return len(p), nil
}

// tellServer has the server hear that its client goes, if the client has not said
// so itself; called with up held.
func (l *link) tellServer() {
	if l.leaving.Load() && l.talk != nil && l.talk.serverCanBeTold() {
		var key [4]byte
		_, _ = rand.Read(key[:])
		frame := wsframe.Append(nil, wsframe.Final|wsframe.Close, &key, []byte{1001 >> 8, 1001 & 0xff})
		l.talk.serverTold(frame)
		_ = l.send(l.server, &l.toServerRest, frame)
	}
}
