package sidecar

import (
	"context"
	"errors"
	"iter"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// flow is everything that moves in a sidecar: goroutines that accept, connect, and
// pass bytes. While it is frozen they stand still, each with nothing in its hands.
type flow struct {
	frozen atomic.Bool

	mu       sync.Mutex
	changed  sync.Cond
	arriving int // clients that are accepted and not passed on yet
	paused   bool
	running  int // goroutines of links
	standing int // … that stand still
	links    map[*link]struct{}
}

func (f *flow) init() {
	f.changed.L = &f.mu
	f.links = map[*link]struct{}{}
}

// count adds n to a number of the flow, which has others look.
func (f *flow) count(number *int, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	*number += n
	f.changed.Broadcast()
}

// join and part are for a link that begins and has ended.
func (f *flow) join(l *link) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.links[l] = struct{}{}
	f.running++
}

func (f *flow) part(l *link) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.links, l)
	f.running--
	f.changed.Broadcast()
}

// stand waits while the flow is frozen, if it is.
func (f *flow) stand() (frozen bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.frozen.Load() {
		return false
	}
	f.standing++
	f.changed.Broadcast()
	for f.frozen.Load() {
		f.changed.Wait()
	}
	f.standing--
	return true
}

// pause is stand for who accepts.
func (f *flow) pause() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.paused = true
	f.changed.Broadcast()
	for f.frozen.Load() {
		f.changed.Wait()
	}
	f.paused = false
}

// await waits until it is so, which is asked with mu held.
func (f *flow) await(ctx context.Context, so func() bool) error {
	stop := context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.changed.Broadcast()
	})
	defer stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	for !so() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		f.changed.Wait()
	}
	return nil
}

// thaw has everything move again.
func (f *flow) thaw() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.frozen.Store(false)
	f.changed.Broadcast()
}

// past is a deadline that wakes who waits for bytes, or to write some.
var past = time.Unix(1, 0)

// pieces are the chunks of c, between two of which the link stands still while the
// flow is frozen.
func (l *link) pieces(c conn) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for again := true; again; {
			again = false
			for p, err := range chunks(c) {
				if errors.Is(err, os.ErrDeadlineExceeded) && l.car.flow.stand() {
					again = true
					break
				}
				if !yield(p, err) {
					return
				}
			}
		}
	}
}

// send writes p to one side. What a freeze keeps from being written is kept in rest.
func (l *link) send(to conn, rest *[]byte, p []byte) error {
	if len(*rest) > 0 {
		*rest = append(*rest, p...)
		return nil
	}
	n, err := to.Write(p)
	if errors.Is(err, os.ErrDeadlineExceeded) && l.car.flow.frozen.Load() {
		*rest = append(*rest, p[n:]...)
		return nil
	}
	return err
}

// flush writes what a freeze has left over, before anything else; it returns when
// nothing else can come before it.
func (l *link) flush(side *sync.Mutex, to conn, rest *[]byte) {
	side.Lock()
	if len(*rest) == 0 {
		side.Unlock()
		return
	}
	go func() {
		defer side.Unlock()
		_, _ = to.Write(*rest) // an error comes again with what follows
		*rest = nil
	}()
}
