//go:build real

package envoy

import (
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// most is the largest number of moments within any window of length d.
func most(at []time.Time, d time.Duration) int {
	slices.SortFunc(at, time.Time.Compare)
	n, from := 0, 0
	for i := range at {
		for at[i].Sub(at[from]) >= d {
			from++
		}
		n = max(n, i-from+1)
	}
	return n
}

// flooded is how many were tried, and when each that was admitted was.
type flooded struct {
	tried    int
	admitted []time.Time
}

// flood tries as fast as it can with a few clients.
func flood(try func() bool, clients int, d time.Duration) (out flooded) {
	var mu sync.Mutex
	var all sync.WaitGroup
	began := time.Now()
	for range clients {
		all.Go(func() {
			for time.Since(began) < d {
				ok := try()
				mu.Lock()
				if out.tried++; ok {
					out.admitted = append(out.admitted, time.Now())
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return out
}

// The guard lets its rate through and no more, also while the weights change
// five times a second; a service without one is not held up.
func TestRealStorm(t *testing.T) {
	const d = 4 * time.Second
	web, raw := freeAddr(t), freeAddr(t)
	c := edge.Config{
		Listeners: []edge.Listener{{Name: "web", Address: web}, {Name: "raw", Address: raw}},
		Services: []edge.Service{
			{Name: "chat", Listener: "web", Prefix: "/chat", StormGuard: 400},
			{Name: "slow", Listener: "web", Prefix: "/slow", StormGuard: 3},
			{Name: "free", Listener: "web", Prefix: "/free"},
			{Name: "line", Listener: "raw", Protocol: edge.TCP, StormGuard: 200},
		},
	}
	at, lines := backend(t, "both"), echo(t, "both")
	wishes := func(green units.Share) desired.Wishes {
		out := desired.Wishes{}
		for name, a := range map[discovery.Service][]desired.Endpoint{"chat": serving(at), "slow": serving(at), "free": serving(at), "line": serving(lines)} {
			w := to("green", map[discovery.Colour][]desired.Endpoint{"blue": a, "green": a})
			w.Proxies = 2
			w.Weights = map[discovery.Colour]units.Share{"green": green, "blue": units.Whole - green}
			out[name] = w
		}
		return out
	}
	w := start(t, c, wishes(0))
	h := client(false)
	get := func(path string) func() bool {
		return func() bool {
			res, err := h.Get("http://" + web.String() + path)
			if err != nil {
				t.Error(err)
				return false
			}
			_ = res.Body.Close()
			if res.StatusCode != 200 && (res.StatusCode != 503 || res.Header.Get("Retry-After") != "1") {
				t.Errorf("%s: %s, %v", path, res.Status, res.Header)
			}
			return res.StatusCode == 200
		}
	}
	ws, _ := dialWS(t, "ws://"+web.String()+"/chat/ws")
	conn, in, _ := dialTCP(t, raw)

	var all sync.WaitGroup
	floods := map[string]*flooded{}
	for path, try := range map[string]func() bool{
		"/chat/x": get("/chat/x"), "/slow/x": get("/slow/x"), "/free/x": get("/free/x"),
		"line": func() bool { return tryTCP(t, raw) != nil },
	} {
		f := new(flooded)
		floods[path] = f
		all.Go(func() { *f = flood(try, 4, d) })
	}
	changes := 0
	for tick := time.NewTicker(200 * time.Millisecond); changes < int(d/(200*time.Millisecond)); changes++ {
		<-tick.C
		w.tell(t, wishes(units.Share(1+changes)))
	}
	all.Wait()
	for path, rate := range map[string]float64{"/chat/x": 200, "/slow/x": 1.5, "line": 100} {
		f := floods[path]
		n, peak := float64(len(f.admitted)), float64(most(f.admitted, time.Second))
		t.Logf("%s: %.1f/s of %d tried, at most %.0f in a second; %v/s is allowed", path, n/d.Seconds(), f.tried, peak, rate)
		// A slow machine tries less than is allowed.
		least := 0.75*min(rate*d.Seconds(), float64(f.tried)) - 1
		if burst := max(1, rate/10); n > 1.01*rate*d.Seconds()+burst || peak > rate*1.05+burst || n < least {
			t.Errorf("%s: %v of %d in %s, at most %v in a second; %v/s is allowed", path, n, f.tried, d, peak, rate)
		}
	}
	if f := floods["/free/x"]; len(f.admitted) != f.tried || f.tried == 0 {
		t.Errorf("a service without a guard got %d of %d requests through", len(f.admitted), f.tried)
	}
	// What a WebSocket's handshake is told; the answer to those that get through
	// is the backend's.
	res := new(http.Response)
	for range 20 {
		if _, res = tryWS(t, "ws://"+web.String()+"/slow/ws"); res.StatusCode == 503 {
			break
		}
	}
	if res.StatusCode != 503 || res.Header.Get("Retry-After") != "1" {
		t.Errorf("a WebSocket is refused with %s, %v", res.Status, res.Header)
	}
	chats(t, ws)
	hears(t, in, conn, "still there")
}
