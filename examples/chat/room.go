package main

import "sync"

// room is everyone who hears what is said to all. The zero value is empty.
type room struct {
	mu    sync.Mutex
	seats map[*seat]struct{}
}

// seat is one listener.
type seat struct {
	// heard holds a few messages, so that a listener that is slow for a moment
	// loses none and one that is slow for long holds nobody up.
	heard chan string
}

func (r *room) enter() *seat {
	s := &seat{heard: make(chan string, 16)}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seats == nil {
		r.seats = map[*seat]struct{}{}
	}
	r.seats[s] = struct{}{}
	return s
}

// leave also ends the seat's channel.
func (r *room) leave(s *seat) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.seats, s)
	close(s.heard)
}

func (r *room) say(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
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
