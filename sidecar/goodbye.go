package sidecar

import "time"

// leave is told by the gate: the connection is evicted. The client is told when
// its message is complete, or after CloseWait its frame, and what it says goes on
// to the server until it answers. Who does not answer within CloseWait is hung up;
// so is, after MessageWait, who has not read a frame to its end.
func (l *link) leave() {
	if !l.leaves() {
		return
	}
	time.AfterFunc(l.car.CloseWait(), l.insist)
	l.down.Lock()
	defer l.down.Unlock()
	l.sayFarewell()
}

// insist: CloseWait has passed since the link was told to leave.
func (l *link) insist() {
	l.hasty.Store(true)
	if l.down.TryLock() {
		l.sayFarewell()
		said := l.said
		l.down.Unlock()
		if said {
			return
		}
	}
	if l.talk == nil || !l.talk.isWebSocket() {
		l.hangUp()
		return
	}
	time.AfterFunc(l.car.opt.MessageWait, l.hangUp)
}

// sayFarewell tells the client if it can be told now; called with down held.
func (l *link) sayFarewell() {
	if l.said {
		return
	}
	way := byFIN
	if l.talk != nil {
		way = l.talk.chooseFarewell(!l.hasty.Load())
	}
	switch way {
	case later:
	case byFrame:
		l.talk.isTold()
		l.said = true
		_ = l.send(l.client, &l.toClientRest, l.car.CloseFrame())
		if l.talk.clientClosed() {
			_ = l.client.CloseWrite()
		}
		time.AfterFunc(l.car.CloseWait(), l.hangUp)
	case byChunk:
		l.lastWord([]byte("0\r\n\r\n"))
	case byFIN:
		l.lastWord(nil)
	case unneeded:
		l.said = true
		if l.talk.clientClosed() {
			_ = l.client.CloseWrite()
		}
		time.AfterFunc(l.car.CloseWait(), l.hangUp)
	}
}

// sayRefusal answers the request that was not passed on, behind all that were;
// called with down held.
func (l *link) sayRefusal() {
	if !l.said && l.refused && l.talk.resting() {
		l.lastWord(l.car.answer(refusal{why: l.refusal, headless: l.talk.headless()}))
	}
}

// lastWord is the last that the client hears; called with down held.
func (l *link) lastWord(p []byte) {
	l.said = true
	if len(p) > 0 {
		_ = l.send(l.client, &l.toClientRest, p)
	}
	_ = l.client.CloseWrite()
	time.AfterFunc(l.car.CloseWait(), l.hangUp)
}

// finish ends the link with this last word, before it was held; called with up
// held.
func (l *link) finish(p []byte) {
	l.down.Lock()
	defer l.down.Unlock()
	if !l.said {
		l.lastWord(p)
	}
	_ = l.server.CloseWrite()
}

// hangUp ends the client's side now, and has the server end its own: it is sent
// what a client sends that leaves, and given as long as a client to answer.
func (l *link) hangUp() {
	l.mu.Lock()
	first := !l.hung
	l.hung = true
	if first {
		if l.down.TryLock() {
			l.said = true
			l.down.Unlock()
		} else if c, ok := l.client.(interface{ SetLinger(int) error }); ok {
			// A write is stuck: what the client does not read need not be kept for it.
			_ = c.SetLinger(0)
		}
		_ = l.client.Close()
		_ = l.server.SetDeadline(time.Now().Add(l.car.CloseWait()))
	}
	l.mu.Unlock()
	if !l.up.TryLock() {
		return // fromClient is writing; it comes here when it finds the client gone
	}
	defer l.up.Unlock()
	l.tellServer()
	_ = l.server.CloseWrite()
}
