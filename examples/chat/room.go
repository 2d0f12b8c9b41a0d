package main

import "sync"

// room is everyone who hears what is said to all. The zero value is empty.
type room struct {
	mu    sync.Mutex
	seats map[*seat]struct{}
	next  uint64 // number of the next message that has one; 0 before begin
}

// seat is one listener.
type seat struct {
	// heard holds some messages, so that a listener that is slow for a moment
	// loses none and one that is slow for long holds nobody up.
	heard chan string
}

// enter also says which numbered message the seat hears first.
func (r *room) enter() (s *seat, from uint64) {
	s = &seat{heard: make(chan string, 64)}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seats == nil {
		r.seats = map[*seat]struct{}{}
	}
	r.seats[s] = struct{}{}
	return s, r.next
}

// leave also ends the seat's channel.
func (r *room) leave(s *seat) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.seats, s)
	close(s.heard)
}

func (r *room) say(text string) { r.tell(0, text) }

// begin says the number of the first message that has one.
func (r *room) begin(next uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next = next
}

// tell says something with a number, or without: 0.
func (r *room) tell(number uint64, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if number > 0 {
		r.next = number + 1
	}
	for s := range r.seats {
		select {
		case s.heard <- text:
		default:
		}
	}
}

func (r *room) size() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.seats)
}
