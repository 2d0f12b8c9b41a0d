package sim

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// tiny is an exact world of one or more instances a side and one proxy, that lets 10
// go every 3 s.
func tiny(blue, green, connections int) *World {
	terms := policy.Default()
	terms.Funnel = units.Funnel{Close: 10, Every: units.Duration(3 * time.Second)}
	w := New(Config{
		Blue: blue, Green: green, Connections: connections, Proxies: 1, Exact: true, Policy: terms, Latency: time.Millisecond,
		Back: func(*rand.Rand) time.Duration { return 200 * time.Millisecond },
	})
	w.Pass(3 * time.Second)
	return w
}

func promote(t *testing.T, w *World) {
	t.Helper()
	if _, err := w.Do(rollout.Promote{Service: "chat", Target: discovery.Green}); err != nil {
		t.Fatal(err)
	}
}

// Every close and every return has a moment of its own.
func TestExactMoments(t *testing.T) {
	w := tiny(1, 1, 20)
	promote(t, w)
	for n := range 20 {
		if !w.Run(time.Minute, func() bool { return len(w.Closes()) > n }) {
			t.Fatalf("%d closes: %s", n, w.Reason().Text)
		}
		if at := w.Closes()[n].At; !w.Now().Equal(at) || w.Fleet.Held(discovery.Green) != n {
			t.Fatalf("close %d at %v: it is %v and green holds %d", n, at, w.Now(), w.Fleet.Held(discovery.Green))
		}
		w.Pass(200*time.Millisecond - 1)
		if got := w.Fleet.Held(discovery.Green); got != n {
			t.Fatalf("client %d is back too early", n)
		}
		w.Pass(1)
		if got := w.Fleet.Held(discovery.Green); got != n+1 {
			t.Fatalf("client %d is not back", n)
		}
	}
	for n, c := range w.Closes()[1:10] {
		if d := c.At.Sub(w.Closes()[n].At); d != 300*time.Millisecond {
			t.Errorf("%v between close %d and the next", d, n)
		}
	}
	if !w.Run(time.Minute, w.Steady) || w.Peak(3*time.Second) != 10 || w.Furthest() != 1 || len(w.Faults()) > 0 {
		t.Errorf("%s, %d closes in 3 s, %d on their way, %v", w.Reason().Text, w.Peak(3*time.Second), w.Furthest(), w.Faults())
	}
}

// The loop sees what the product's would: who refuses is gone, who is silent may be
// there, who contradicts himself is not believed.
func TestSightings(t *testing.T) {
	for name, c := range map[string]struct {
		happens func(*Instance)
		refused bool
		err     string
	}{
		"dead":    {(*Instance).Crash, true, "connection refused"},
		"deaf":    {func(in *Instance) { in.Deaf = true }, false, "no answer within 2s"},
		"a liar":  {func(in *Instance) { in.total += 3 }, false, "its answers contradict each other"},
		"unable":  {func(in *Instance) { in.total += 70 }, false, "only what was accepted can be held"},
		"serving": {func(*Instance) {}, false, ""},
	} {
		w := tiny(2, 1, 20)
		promote(t, w)
		w.Run(time.Minute, func() bool { return w.State().Phase() == state.Draining })
		w.Pass(2 * time.Second)
		in := w.Fleet.Instance("chat-b0001")
		c.happens(in)
		w.Pass(600 * time.Millisecond)
		got := w.Seen().Instances[in.ID]
		if got.Refused != c.refused || (got.Err == "") != (c.err == "") || !strings.Contains(got.Err, c.err) {
			t.Errorf("%s: refused %t, %q", name, got.Refused, got.Err)
		}
	}
}

// Each promise that is watched at a close can be broken.
func TestFaults(t *testing.T) {
	order := func(w *World, step uint64, ceiling int) {
		w.Fleet.Instance("chat-b0001").hear(desired.Instruction{Drain: &contract.Order{Rollout: "chat-1", Epoch: 1, Step: step, Ceiling: &ceiling}})
	}
	for want, breaks := range map[string]func(*World){
		"while 1 proxies send it new ones": func(w *World) { order(w, 1, 9) },
		"has room for 5; it holds and will be sent 10": func(w *World) {
			w.Fleet.Instance("chat-b0001").SetCapacity(5)
			order(w, 1, 9)
		},
		"got the order 1.1 after 1.2": func(w *World) {
			order(w, 2, 10)
			order(w, 1, 10)
		},
		"got a bad order": func(w *World) { order(w, 1, -1) },
	} {
		w := tiny(1, 1, 10)
		breaks(w)
		w.Pass(time.Second)
		if got := strings.Join(w.Faults(), "\n"); !strings.Contains(got, want) {
			t.Errorf("%q is not in %q", want, got)
		}
	}
}

// Only what is stored survives rolloutd; what was under way reaches nobody.
func TestRestart(t *testing.T) {
	w := tiny(1, 1, 10)
	promote(t, w)
	w.Run(time.Minute, func() bool { return w.State().Phase() == state.Draining })
	was := w.State().Rollout.ID
	w.Restart()
	if s := w.Seen(); len(s.Instances) > 0 || len(s.Fleet.Instances) != 2 || !s.Watching.Equal(w.Now()) || w.State().Rollout.ID != was {
		t.Errorf("after a restart: %+v", s)
	}
	if !w.Run(time.Minute, w.Steady) || w.State().Live != discovery.Green || len(w.Faults()) > 0 {
		t.Errorf("%s, %v", w.Reason().Text, w.Faults())
	}
}

// A proxy is seen to take, to refuse, to go, and to have what it had before.
func TestProxies(t *testing.T) {
	w := tiny(1, 1, 10)
	p := w.Edge.Proxy("edge-1")
	p.Refuse("no memory")
	promote(t, w)
	w.Pass(5 * time.Second)
	if got := w.Seen().Proxies[0]; got.Confirmed || got.Nack != "no memory" || w.State().Phase() != state.Confirming {
		t.Errorf("it refuses, and is seen as %+v in %s", got, w.State().Phase())
	}
	p.Leave()
	if got := w.Seen().Proxies[0]; got.Connected || !got.Lost.Equal(w.Now()) {
		t.Errorf("it left, and is seen as %+v", got)
	}
	p.Return()
	p.Take()
	w.Pass(time.Second)
	if got := w.Seen().Proxies[0]; !got.Connected || !got.Confirmed || got.Nack != "" {
		t.Errorf("it is back, and is seen as %+v", got)
	}
	if w.Edge.Proxy("edge-2"); len(w.Seen().Proxies) != 2 {
		t.Errorf("a new one is not seen: %+v", w.Seen().Proxies)
	}
}

// A moved instance is two processes, a recoloured one is one: what it holds stays in
// the cluster by which it came.
func TestMoveAndRecolour(t *testing.T) {
	w := tiny(2, 1, 20)
	a, b := w.Fleet.Instance("chat-b0001"), w.Fleet.Instance("chat-b0002")
	next := a.Move(netip.MustParseAddrPort("10.1.9.9:9000"))
	if a.Name() != "chat-b0001@10.1.0.0:9000/blue" || !a.Gone() || a.Holds() != 10 || next.Name() != "chat-b0001" || next.Holds() != 0 {
		t.Errorf("%s holds %d, %s holds %d", a.Name(), a.Holds(), next.Name(), next.Holds())
	}
	b.Recolour(discovery.Green)
	if w.Fleet.Held(discovery.Blue) != 20 || w.Fleet.Held(discovery.Green) != 0 || b.Colour != discovery.Green {
		t.Errorf("blue holds %d, green %d", w.Fleet.Held(discovery.Blue), w.Fleet.Held(discovery.Green))
	}
	b.End(3)
	b.Admit(1)
	b.Vanish()
	b.Start()
	if b.Holds() != 0 || w.Fleet.Held(discovery.Blue) != 10 || b.Status().Accepted != 0 || b.Dead() {
		t.Errorf("started anew, it says %+v", b.Status())
	}
	if _, all := w.disconnects(); all != w.conf.Connections+w.Crowd.came {
		t.Errorf("%d clients are somewhere", all)
	}
}
