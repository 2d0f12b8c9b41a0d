package conform

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// lame is another implementation of the contract, with one fault.
type lame struct {
	fault string
	token string

	mu       sync.Mutex
	held     map[net.Conn]bool
	accepted int
	evicted  int
	answers  int
	draining bool
	deaf     bool // refuses for ever
	refused  int
	word     word
	running  *time.Timer
}

// word is an order or a release, read leniently.
type word struct {
	Rollout string `json:"rollout"`
	Epoch   int    `json:"epoch"`
	Step    int    `json:"step"`
	Ceiling *int   `json:"ceiling"`
	OverMS  int    `json:"over_ms"`
	StartMS int    `json:"start_ms"`
}

func (l *lame) has(fault string) bool { return l.fault == fault }

func (l *lame) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/ws" {
		l.websocket(w, r)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	code := l.answer(r)
	w.WriteHeader(code)
	if code == http.StatusOK {
		_ = json.NewEncoder(w).Encode(l.status())
	}
}

func (l *lame) status() map[string]any {
	s := map[string]any{"state": "serving", "active": len(l.held), "accepted": l.accepted, "evicted": l.evicted, "returned": nil, "limit": 0,
		"rollout": l.word.Rollout, "epoch": l.word.Epoch, "step": l.word.Step, "ceiling": nil}
	if l.draining {
		s["state"], s["ceiling"] = "draining", l.word.Ceiling
		if len(l.held) == 0 {
			s["state"] = "drained"
		}
	}
	l.answers++
	s["boot"] = "b1"
	peer := func(n int) map[string]any {
		return map[string]any{"held": n, "accepted": l.accepted, "refused": l.refused}
	}
	s["peers"] = map[string]any{"10.0.0.1": peer(len(l.held))}
	switch l.fault {
	case "status: peers by name":
		s["peers"] = map[string]any{"edge-1": peer(len(l.held))}
	case "peers: hold more than is active":
		s["peers"] = map[string]any{"10.0.0.1": peer(len(l.held) + 1)}
	case "peers: each connection is one":
		each := map[string]any{}
		for i := range len(l.held) {
			each[fmt.Sprint("10.0.0.", i+1)] = peer(1)
		}
		s["peers"] = each
	case "peers: refused not counted":
		s["peers"] = map[string]any{"10.0.0.1": map[string]any{"held": len(l.held), "accepted": l.accepted}}
	case "peers: not said":
		delete(s, "peers")
	case "drained: never":
		if l.evicted > 0 && l.draining {
			s["state"] = "draining"
		}
	case "drained: lingers for ever":
		if l.evicted > 0 && l.draining {
			s["state"], s["lingering"] = "draining", 1
		}
	case "boot: of each answer":
		s["boot"] = fmt.Sprint("b", l.answers)
	case "boot: none when it drains":
		if l.draining {
			delete(s, "boot")
		}
	case "returned: everybody":
		s["returned"] = l.accepted
	case "boot: not said":
		delete(s, "boot")
	case "status: boot is a page":
		s["boot"] = strings.Repeat("b", 65)
	case "status: no limit":
		delete(s, "limit")
	case "status: active is text":
		s["active"] = fmt.Sprint(len(l.held))
	case "status: no such state":
		s["state"] = "ok"
	case "order: ceiling not shown":
		s["ceiling"] = nil
	case "order: step not shown":
		s["step"] = 0
	}
	return s
}

func (l *lame) answer(r *http.Request) int {
	if l.token != "" && r.Header.Get("Authorization") != "Bearer "+l.token && !l.has("guard: nobody asks") &&
		(!l.has("guard: open to read") || r.Method != http.MethodGet) {
		return http.StatusUnauthorized
	}
	if r.Method == http.MethodGet {
		return http.StatusOK
	}
	if r.Method != http.MethodPut && r.Method != http.MethodDelete && !l.has("method: POST is PUT") {
		return http.StatusMethodNotAllowed
	}
	body, _ := io.ReadAll(r.Body)
	if len(body) > 64<<10 && !l.has("oversized: no limit") {
		return http.StatusRequestEntityTooLarge
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(body, &all); err != nil || all == nil {
		if l.has("malformed: ignored") {
			return http.StatusOK
		}
		return http.StatusBadRequest
	}
	var o word
	if err := json.Unmarshal(body, &o); err != nil || o.Rollout == "" || o.Epoch < 1 || o.Step < 0 {
		if l.has("wrong-type: ignored") {
			return http.StatusOK
		}
		return http.StatusBadRequest
	}
	const day = 86_400_000
	if o.Ceiling != nil && *o.Ceiling < 0 && !l.has("out-of-range: negative ceiling") || o.OverMS < 0 || o.StartMS < 0 || o.OverMS > day || o.StartMS > day && !l.has("out-of-range: start after days") {
		return http.StatusBadRequest
	}
	if r.Method == http.MethodDelete {
		return l.release(o)
	}
	return l.order(o)
}

func (l *lame) release(o word) int {
	if o.Epoch < l.word.Epoch {
		if l.has("stale-release: obeyed") {
			l.draining = false
		}
		if l.has("stale-release: answered 200") || l.has("stale-release: obeyed") {
			return http.StatusOK
		}
		return http.StatusConflict
	}
	if !l.draining && l.has("release: not twice") {
		return http.StatusConflict
	}
	l.deaf = l.has("serve-again: never")
	l.draining, l.word = false, word{Rollout: o.Rollout, Epoch: o.Epoch}
	if !l.has("release-running: goes on") {
		l.stop()
	}
	return http.StatusOK
}

func (l *lame) order(o word) int {
	old := o.Epoch < l.word.Epoch || o.Epoch == l.word.Epoch && (o.Step < l.word.Step || !l.draining && !l.has("late-order: obeyed"))
	same := l.draining && o.Epoch == l.word.Epoch && o.Step == l.word.Step
	switch {
	case old && l.has("stale-order: answered 200"):
		return http.StatusOK
	case old && l.has("stale-order: older steps are taken") && o.Epoch == l.word.Epoch:
	case old:
		return http.StatusConflict
	case same && l.has("repeat: refused"):
		return http.StatusConflict
	case same && !l.has("repeat-running: starts again"):
		return http.StatusOK
	}
	running := l.running != nil
	l.draining, l.word = true, o
	switch {
	case o.Ceiling == nil && l.has("hold: null is 0"):
		l.close(0, o)
	case o.Ceiling == nil && l.has("stop: null is nothing"):
	case o.Ceiling == nil:
		l.stop()
	case running && l.has("replace: first come"):
	default:
		l.close(*o.Ceiling, o)
	}
	return http.StatusOK
}

func (l *lame) stop() {
	if l.running != nil {
		l.running.Stop()
		l.running = nil
	}
}

// close lets all above the ceiling go, with mu held.
func (l *lame) close(ceiling int, o word) {
	l.stop()
	if l.has("ceiling: one too many") {
		ceiling--
	}
	n, over, start := len(l.held)-ceiling, time.Duration(o.OverMS)*time.Millisecond, time.Duration(o.StartMS)*time.Millisecond
	if n <= 0 {
		return
	}
	level, each, distance := len(l.held), 1, over/time.Duration(n)
	switch l.fault {
	case "pace: all at once":
		each = n
	case "pace: in pairs":
		each, distance = 2, 2*distance
	case "pace: one at the very end":
		distance = over / time.Duration(max(n-1, 1))
	case "pace: no start_ms":
		start = 0
	case "pace: too fast":
		distance /= 2
	}
	var timer *time.Timer
	timer = time.AfterFunc(start, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.running != timer {
			return
		}
		for range each {
			if level > ceiling {
				level--
				if len(l.held) > level || l.has("natural: closed in addition") {
					l.evict()
				}
			}
		}
		if level > ceiling {
			timer.Reset(distance)
		} else {
			l.running = nil
		}
	})
	l.running = timer
}

func (l *lame) evict() {
	all := slices.Collect(maps.Keys(l.held))
	if len(all) == 0 {
		return
	}
	c := all[rand.IntN(len(all))]
	delete(l.held, c)
	if !l.has("evicted: not counted") {
		l.evicted++
	}
	goodbye := "\x88\x02\x03\xf4" // 1012
	switch l.fault {
	case "goodbye: 1001":
		goodbye = "\x88\x02\x03\xe9"
	case "goodbye: none":
		goodbye = ""
	}
	go func() {
		_, _ = io.WriteString(c, goodbye)
		_ = c.Close()
	}()
}

func (l *lame) websocket(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	refused := (l.draining || l.deaf) && !l.has("refuse: nobody")
	if refused {
		l.refused++
		code := http.StatusServiceUnavailable
		if l.has("refuse: 404") {
			code = http.StatusNotFound
		}
		if !l.has("refuse: no Retry-After") {
			w.Header().Set("Retry-After", "1")
		}
		if l.has("refuse: counted") {
			l.accepted++
		}
		l.mu.Unlock()
		w.WriteHeader(code)
		return
	}
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	l.held[c] = true
	l.accepted++
	l.mu.Unlock()
	_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
	_, _ = io.WriteString(c, "\x81\x05hello"+"\x89\x02hi"+"\x82\x7e\x01\x00"+strings.Repeat("x", 256))
	_, _ = io.Copy(io.Discard, c)
	_ = c.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[c] && l.has("accept: the end counts as evicted") {
		l.evicted++
	}
	if !l.has("accept: the end is not seen") {
		delete(l.held, c)
	}
}
