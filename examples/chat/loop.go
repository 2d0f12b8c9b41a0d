package main

import "time"

// loop is the one thread of servers that have one: while it lets a client in (a token to
// check, a session to load), messages wait, and other clients, too. It sleeps
// rather than computes: in a demo all instances share the cores of one machine.
type loop struct {
	busy      chan struct{} // one place; who waits gets it in order
	handshake time.Duration
}

// newLoop returns a loop whose handshakes take so long. With 0 nobody ever waits.
func newLoop(handshake time.Duration) *loop {
	return &loop{make(chan struct{}, 1), handshake}
}

// letIn takes a handshake's time. Who has given up meanwhile costs as much: the server
// notices only when it is his turn.
func (l *loop) letIn() {
	if l.handshake > 0 {
		l.busy <- struct{}{}
		time.Sleep(l.handshake)
		<-l.busy
	}
}

// turn waits for the turn of a message.
func (l *loop) turn() {
	if l.handshake > 0 {
		l.busy <- struct{}{}
		<-l.busy
	}
}
