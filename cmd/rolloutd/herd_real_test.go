//go:build real

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/test/fleet"
)

// herd is WebSocket clients of chat that dial until they are served, and again when
// they are disconnected. What they went through is noted. Its methods may be called
// concurrently, run once.
type herd struct {
	url string
	// base and max bound the wait before a client dials again: uniform in
	// [0, min(max, base·2^k)) after k refusals in a row. Without them it dials at once,
	// refused every 100 ms.
	base, max time.Duration

	mu     sync.Mutex
	conns  []*fleet.Socket // by client; nil while it is not connected
	events []event
	echoes map[string]int
}

// event is what one client went through.
type event struct {
	at     time.Time
	kind   string // joined, left or refused
	status int    // HTTP, of a refusal
	cause  string
}

const joined, left, refused = "joined", "left", "refused"

func newHerd(size int, url string, base, most time.Duration) *herd {
	return &herd{url: url, base: base, max: most, conns: make([]*fleet.Socket, size), echoes: map[string]int{}}
}

// run ends with ctx, and closes every connection then.
func (h *herd) run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	dials := make(chan struct{}, 128) // so many at a time
	for i := range h.conns {
		all.Go(func() {
			for refusals := 0; ctx.Err() == nil; {
				dials <- struct{}{}
				conn, ok := h.dial(ctx)
				<-dials
				if ok {
					refusals = 0
					h.stay(ctx, i, conn)
				} else {
					refusals++
				}
				select {
				case <-time.After(h.delay(refusals)):
				case <-ctx.Done():
				}
			}
		})
	}
}

func (h *herd) delay(refusals int) time.Duration {
	switch {
	case h.max > 0:
		return rand.N(min(h.max, h.base<<min(refusals, 20)))
	case refusals > 0:
		return 100 * time.Millisecond
	}
	return 0
}

func (h *herd) dial(ctx context.Context) (*fleet.Socket, bool) {
	shaking, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, res, err := fleet.DialSocket(shaking, h.url)
	if err == nil {
		return conn, true
	}
	if ctx.Err() == nil {
		e := event{kind: refused, cause: err.Error()}
		if res != nil {
			e.status = res.StatusCode
		}
		h.note(e)
	}
	return nil, false
}

// stay reads until the connection ends.
func (h *herd) stay(ctx context.Context, i int, conn *fleet.Socket) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer conn.Close()
	h.hold(i, conn)
	h.note(event{kind: joined})
	for {
		text, err := conn.Hear()
		if err != nil {
			h.hold(i, nil)
			if ctx.Err() == nil {
				h.note(event{kind: left, cause: err.Error()})
			}
			return
		}
		h.mu.Lock()
		h.echoes[text]++
		h.mu.Unlock()
	}
}

func (h *herd) hold(i int, conn *fleet.Socket) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conns[i] = conn
}

func (h *herd) note(e event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e.at = time.Now()
	h.events = append(h.events, e)
}

// all is what its clients went through, in the order of time.
func (h *herd) all() []event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.events)
}

func (h *herd) connected() (now []*fleet.Socket) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(h.conns), func(c *fleet.Socket) bool { return c == nil })
}

// ask has every client that is connected say something, and says what is missing
// of the echoes when it is called again.
func (h *herd) ask() (missing func() error) {
	text := fmt.Sprintf("still there at %d?", time.Now().UnixNano())
	asked := h.connected()
	for _, c := range asked {
		_ = c.Say(text) // if it cannot, no echo comes
	}
	return func() error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if n := h.echoes[text]; n < len(asked) {
			return fmt.Errorf("%d of %d connections echo", n, len(asked))
		}
		return nil
	}
}
