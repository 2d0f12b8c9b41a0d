//go:build real

package rolloutd_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// TestRealSlowProxy: of two Envoys one hears everything later; nothing is closed
// before it, too, has acknowledged.
func TestRealSlowProxy(t *testing.T) {
	t.Parallel()
	const late = 1500 * time.Millisecond
	w := start(t, plan{chats: 1, policy: halfPolicy})
	w.startEnvoy("edge-1", w.ctl.XDS)
	w.startEnvoy("edge-slow", slow(t, w.ctl.XDS, late))
	c := w.gather(20)
	c.on(chat, discovery.Blue)
	c.on(line, discovery.Blue)
	began := time.Now()
	ids := map[discovery.Service]string{}
	for _, s := range []discovery.Service{chat, line} {
		ids[s] = w.promote(s, api.Promotion{Target: "green"})
		st := w.await(s, "the slow proxy to be named", func(st api.Status) bool {
			return phase(st) == state.Confirming && strings.Contains(st.Reason.Text, "edge-slow")
		})
		if st.Reason.Code != rollout.Unconfirmed || st.Proxies.Connected != 2 || st.Proxies.Confirmed > 1 {
			t.Errorf("%s: %+v, %d of %d confirmed", s, st.Reason, st.Proxies.Confirmed, st.Proxies.Connected)
		}
	}
	for s, id := range ids {
		c.on(s, discovery.Green)
		r := w.done(s, id)
		c.kept(s, began, half, r)
		told := r.Events[slices.IndexFunc(r.Events, func(e state.Event) bool { return strings.HasPrefix(e.Text, "all new connections") })].At
		if first := c.left(s, began)[0]; first.At.Before(told.Add(late)) {
			t.Errorf("%s: a client was disconnected %s after the switch was published; the slow proxy heard of it after %s", s, first.At.Sub(told), late)
		}
	}

	// An abort before the slow one has heard of the switch: it hears of it after
	// the abort, so what it acknowledged before says nothing.
	id := w.promote(chat, api.Promotion{Target: "blue"})
	w.await(chat, "the slow proxy to be told", func(st api.Status) bool {
		return phase(st) == state.Confirming && st.Reason.Code == rollout.Unconfirmed
	})
	began = time.Now()
	_, err := w.api.Abort(w.ctx, chat)
	w.must(err)
	if r := w.done(chat, id); r.Ended.Before(began.Add(late)) {
		t.Errorf("it was back %s after the abort; until then the slow proxy sent new connections to blue", r.Ended.Sub(began))
	}
	c.on(chat, discovery.Green)
}

// slow forwards connections to an address; what comes back arrives late.
func slow(t *testing.T, to netip.AddrPort, late time.Duration) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	type piece struct {
		due  time.Time
		data []byte
	}
	serve := func(near net.Conn) {
		defer near.Close()
		far, err := net.Dial("tcp", to.String())
		if err != nil {
			return
		}
		defer far.Close()
		go func() { _, _ = io.Copy(far, near); far.Close() }()
		under := make(chan piece, 1024) // what is on its way
		go func() {
			defer close(under)
			for {
				b := make([]byte, 32<<10)
				n, err := far.Read(b)
				if err != nil {
					return
				}
				under <- piece{time.Now().Add(late), b[:n]}
			}
		}()
		for p := range under {
			time.Sleep(time.Until(p.due))
			_, _ = near.Write(p.data)
		}
	}
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			go serve(near)
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// TestRealRefusal: a listener that no Envoy can bind is shown with the reason; it
// holds up the service behind it and no other, until it can be bound.
func TestRealRefusal(t *testing.T) {
	t.Parallel()
	w := start(t, plan{chats: 1, policy: halfPolicy})
	w.startEnvoy("edge-1", w.ctl.XDS)
	w.startEnvoy("edge-2", w.ctl.XDS)
	c := w.gather(20)
	c.on(chat, discovery.Blue)
	c.on(line, discovery.Blue)

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	defer taken.Close()
	for _, colour := range discovery.Colours {
		w.startChat("news", discovery.InstanceID("news-"+string(colour)), colour)
	}
	w.must(w.ctl.WriteInstances(w.instances))
	rest := strings.Replace(w.rest, "services:\n", fmt.Sprintf("  - {name: more, address: %s}\nservices:\n", taken.Addr()), 1)
	w.must(w.ctl.Configure(rest + "  - {name: news, listener: more, policy: " + halfPolicy + "}\n"))
	w.ctl.Reload()
	w.await("news", "both refusals and its live colour", func(st api.Status) bool { return len(st.Proxies.Nacks) == 2 && st.Live != "" })
	for _, want := range []string{"edge-1", "edge-2", "more", "cannot bind"} {
		if shown := w.ctlDo("proxies"); !strings.Contains(shown, want) {
			t.Errorf("rolloutctl proxies does not show %q:\n%s", want, shown)
		}
	}
	if shown := w.page(w.ctl.API, "/metrics"); !strings.Contains(shown, `sluice_nacks_total{node="edge-1"} `) || strings.Contains(shown, `sluice_nacks_total{node="edge-1"} 0`) {
		t.Errorf("the metrics do not count the refusal:\n%s", shown)
	}
	if _, err := w.api.Promote(w.ctx, "news", api.Promotion{Target: "green"}); err == nil || !strings.Contains(err.Error(), "refused its configuration") {
		t.Errorf("promote said %v", err)
	}
	held := w.promote("news", api.Promotion{Target: "green", Force: true})
	w.awaitReason("news", rollout.Nacked)

	began := time.Now()
	id := w.promote(chat, api.Promotion{Target: "green"})
	c.on(chat, discovery.Green)
	c.kept(chat, began, half, w.done(chat, id))
	w.awaitReason("news", rollout.Nacked)

	// What was refused is sent again, at once when an operator says so.
	w.must(taken.Close())
	w.ctl.Reload()
	if r := w.done("news", held); r.Outcome != state.Done || !r.Forced {
		t.Errorf("%+v", r)
	}
	c.works()
}

// TestRealVanishedProxy: an Envoy that dies before it has acknowledged is named and
// waited for. Another serves from the same machine, so the instances cannot tell that it
// is gone, but an operator can.
func TestRealVanishedProxy(t *testing.T) {
	t.Parallel()
	w := start(t, plan{chats: 1, policy: halfPolicy})
	w.startEnvoy("edge-1", w.ctl.XDS)
	c := w.gather(20)
	c.on(chat, discovery.Blue)
	c.on(line, discovery.Blue)
	// It serves nobody: the crowd came before it.
	gone := w.startEnvoy("edge-2", slow(t, w.ctl.XDS, time.Second))

	began := time.Now()
	id := w.promote(chat, api.Promotion{Target: "green"})
	w.awaitPhase(chat, state.Confirming)
	gone.Kill()
	st := w.await(chat, "the lost proxy to be named", func(st api.Status) bool {
		return strings.Contains(st.Reason.Text, "proxy edge-2 is not connected") && strings.Contains(st.Reason.Text, "where edge-1 is, too")
	})
	if st.Reason.Code != rollout.Unconfirmed || !strings.Contains(st.Reason.Text, "rolloutctl proxies forget edge-2") {
		t.Errorf("%+v", st.Reason)
	}
	if said := w.ctlDo("proxies", "forget", "edge-2"); !strings.Contains(said, "edge-2 is taken for gone") {
		t.Errorf("forget said %s", said)
	}
	c.on(chat, discovery.Green)
	r := w.done(chat, id)
	c.kept(chat, began, half, r)
	if !slices.Equal(r.LeftBehind, []string{"proxy edge-2"}) {
		t.Errorf("left behind: %v", r.LeftBehind)
	}
}
