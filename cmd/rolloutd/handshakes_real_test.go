//go:build real

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
)

// takeover is how long after Envoy's acknowledgement, which its main thread
// gives, a worker thread that gets no processor may still go by the old routes.
const takeover = 50 * time.Millisecond

// TestRealHandshakes promotes there and back under constant handshakes: none
// that was started after the last proxy's acknowledgement, and Envoy's takeover,
// reaches the old colour, and none is refused. How many come within a takeover
// depends on how long a worker waits for its processor, so the switches are
// counted in which one did: it is the exception.
func TestRealHandshakes(t *testing.T) {
	w := start(t, plan{chats: 2, policy: "{funnel: 1000/100ms}"})
	w.startEnvoy("edge-1", w.ctl.XDS)
	w.startEnvoy("edge-2", w.ctl.XDS)
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(w.ctx)
	defer all.Wait()
	defer cancel()
	seen := map[discovery.Service]*handshakes{chat: {}, line: {}}
	for range 3 {
		all.Go(func() { seen[chat].run(ctx, w.socket) })
	}
	all.Go(func() { seen[line].run(ctx, w.greet) })

	after, stray := map[discovery.Service]int{}, map[string]bool{}
	for i := range 20 {
		to := discovery.Colours[(i+1)%2]
		acknowledged := map[discovery.Service]time.Time{}
		ids := map[discovery.Service]string{}
		for s := range seen {
			ids[s] = w.promote(s, api.Promotion{Target: string(to)})
		}
		w.until("every proxy's acknowledgement", func() error {
			for s := range seen {
				switch r := w.stored(s).Rollout; {
				case !acknowledged[s].IsZero() || r != nil && r.ID == ids[s] && r.Settled.IsZero() && r.Phase != rollout.Draining:
				case r != nil && r.Phase == rollout.Confirming:
					acknowledged[s] = r.Settled
				default: // missed, so it was before now
					acknowledged[s] = time.Now()
				}
			}
			if len(acknowledged) < len(seen) {
				return fmt.Errorf("only %v", acknowledged)
			}
			return nil
		})
		for s, h := range seen {
			w.done(s, ids[s])
			for _, x := range h.take() {
				switch {
				case x.err != nil:
					t.Errorf("promotion %d of %s: a handshake failed %s after the acknowledgement: %v", i, s, x.at.Sub(acknowledged[s]), x.err)
				case x.at.After(acknowledged[s]):
					after[s]++
					if late := x.at.Sub(acknowledged[s]); x.hello.Colour != string(to) && late < takeover {
						t.Logf("promotion %d of %s: a handshake started %s after the acknowledgement reached %s", i, s, late, x.hello.Instance)
						stray[ids[s]] = true
					} else if x.hello.Colour != string(to) {
						t.Errorf("promotion %d of %s: a handshake started %s after the acknowledgement reached %s", i, s, late, x.hello.Instance)
					}
				}
			}
		}
	}
	if len(stray) > 4 {
		t.Errorf("in %d of 40 switches handshakes that were started after the acknowledgement reached the old colour", len(stray))
	}
	for s, n := range after {
		if t.Logf("%s: %d handshakes after an acknowledgement", s, n); n < 500 {
			t.Errorf("%d handshakes of %s prove little", n, s)
		}
	}
}

// handshakes are those since they were taken last.
type handshakes struct {
	mu   sync.Mutex
	list []handshake
}

type handshake struct {
	at    time.Time // when it was started
	hello clients.Hello
	err   error
}

// run does one after the other until ctx ends.
func (h *handshakes) run(ctx context.Context, shake func(context.Context) (clients.Hello, error)) {
	for ctx.Err() == nil {
		x := handshake{at: time.Now()}
		if x.hello, x.err = shake(ctx); ctx.Err() != nil {
			return
		}
		h.mu.Lock()
		h.list = append(h.list, x)
		h.mu.Unlock()
	}
}

func (h *handshakes) take() []handshake {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := h.list
	h.list = nil
	return list
}

// socket opens a WebSocket, hears who serves it, and closes it.
func (w *world) socket(ctx context.Context) (h clients.Hello, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws://"+w.web.String()+"/ws", nil)
	if err != nil {
		return h, err
	}
	defer conn.CloseNow()
	_, b, err := conn.Read(ctx)
	if err != nil {
		return h, err
	}
	return h, json.Unmarshal(b, &h)
}

// greet does the same with a raw TCP connection.
func (w *world) greet(ctx context.Context) (clients.Hello, error) {
	x, err := w.call(ctx, false)
	if err == nil {
		x.end()
	}
	return x.hello, err
}
