//go:build real

package rolloutd_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// TestRealHandshakes promotes there and back under constant handshakes: none is
// refused, and none that was started after the last proxy's acknowledgement reaches
// the old colour (TestRealAcknowledged in package envoy looks at the moment itself).
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

	const enough = 30 // handshakes after each confirmation
	after := map[discovery.Service]int{}
	for i := range 20 {
		to := discovery.Colours[(i+1)%2]
		ids := map[discovery.Service]string{}
		for s := range seen {
			ids[s] = w.promote(s, api.Promotion{Target: string(to)})
		}
		for s, h := range seen {
			acknowledged := w.acknowledged(s, w.done(s, ids[s]))
			w.until("handshakes after the confirmation", func() error { return h.since(acknowledged.Add(settle), enough) })
			for _, x := range h.take() {
				later := x.at.Sub(acknowledged)
				switch {
				case x.err != nil:
					t.Errorf("promotion %d of %s: a handshake failed %s after the acknowledgement: %v", i, s, later, x.err)
				case later > 0 && x.hello.Colour != string(to):
					t.Errorf("promotion %d of %s: a handshake started %s after the acknowledgement reached %s", i, s, later, x.hello.Instance)
				case later > 0:
					after[s]++
				}
			}
		}
	}
	t.Logf("handshakes after an acknowledgement: %v", after)
}

// settle is how long after the last acknowledgement the rollout goes on: handshakes
// that were under way by then may still end on the old side.
const settle = 500 * time.Millisecond

// acknowledged is when the rollout had seen the last proxy's acknowledgement.
func (w *world) acknowledged(s discovery.Service, r state.Record) time.Time {
	w.t.Helper()
	for _, e := range r.Events {
		if strings.HasPrefix(e.Text, "every proxy sends new connections to") {
			return e.At.Add(-settle)
		}
	}
	w.t.Fatalf("%s: rollout %s was never confirmed: %v", s, r.ID, r.Events)
	return time.Time{}
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

// since is nil once n were started after a moment.
func (h *handshakes) since(at time.Time, n int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := slices.IndexFunc(h.list, func(x handshake) bool { return x.at.After(at) })
	if first < 0 || len(h.list)-first < n {
		return fmt.Errorf("not %d of %d", n, len(h.list))
	}
	return nil
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
