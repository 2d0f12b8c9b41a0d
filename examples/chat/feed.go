package main

import (
	"encoding/json"
	"time"
)

// news is a message to everyone, and an ask: the two that have a type.
type news struct {
	Type string `json:"type"`
	// ID numbers what is said to everyone.
	ID uint64 `json:"id,omitempty"`
	// Reason is for people who read logs; after WithinMS the connection is closed.
	Reason   string `json:"reason,omitempty"`
	WithinMS int64  `json:"within_ms,omitempty"`
}

func (n news) String() string { b, _ := json.Marshal(n); return string(b) }

// ask is what a client hears that is to come over.
func ask(within time.Duration) string {
	return news{Type: "reconnect", Reason: "deploy", WithinMS: within.Milliseconds()}.String()
}

// feed says a message to everyone every so often, until stop. The numbers are those of
// the clock, so that all instances number alike, as if they had it from one queue.
func (s *server) feed(every time.Duration) (stop func()) {
	number := func() uint64 { return uint64(time.Now().UnixNano() / int64(every)) }
	next := number() + 1
	s.room.begin(next)
	ending, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-ending:
				return
			case <-time.After(time.Until(time.Unix(0, int64(next)*int64(every)))):
			}
			s.loop.turn()
			for ; next <= number(); next++ {
				s.room.tell(next, news{Type: "news", ID: next}.String())
			}
		}
	}()
	return func() { close(ending); <-ended }
}
