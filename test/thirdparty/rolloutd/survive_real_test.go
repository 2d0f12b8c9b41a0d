//go:build real

package rolloutd_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// half is the cap of the worlds in which clients are watched.
var half = units.Funnel{Close: 10, Every: units.Duration(500 * time.Millisecond)}

const halfPolicy = "{funnel: 10/500ms, return_timeout: 30s}"

// TestRealKill kills rolloutd in every phase there is: what was begun goes on
// where it was, and no client notices anything but the funnel.
func TestRealKill(t *testing.T) {
	w := start(t, plan{chats: 2, policy: halfPolicy})
	w.startEnvoy("edge-1", w.ctl.XDS)
	w.startEnvoy("edge-2", w.ctl.XDS)
	c := w.gather(40)
	c.on(chat, discovery.Blue)
	c.on(line, discovery.Blue)

	// An instance that does not answer holds the rollout in its first phase.
	began := time.Now()
	w.chat["chat-g1"].Signal(syscall.SIGSTOP)
	// A step is longer than rolloutd takes to come back.
	slow := units.Funnel{Close: 20, Every: units.Duration(2 * time.Second)}
	id := w.promote(chat, api.Promotion{Target: "green", Overrides: policy.Overrides{
		Canary: new(units.Share(2000)), Soak: new(units.Duration(time.Second)), Close: &slow.Close, Every: &slow.Every,
	}})
	other := w.promote(line, api.Promotion{Target: "green"})
	w.killIn(c, state.Opening)
	w.chat["chat-g1"].Signal(syscall.SIGCONT)
	w.killIn(c, state.Shifting)
	w.killIn(c, state.Confirming)

	c.streams.keepAway(true)
	w.await(chat, "the first evictions", func(st api.Status) bool { return st.Rollout != nil && st.Rollout.Evicted > 0 })
	for range 2 {
		w.killIn(c, state.Draining)
	}
	// Without orders the instances finish their step and hold.
	w.awaitPhase(chat, state.Draining)
	w.ctl.Kill()
	killed := time.Now()
	c.quiet(chat, slow.Every.D()+half.Every.D())
	if n := len(c.left(chat, killed)); n > slow.Close {
		t.Errorf("%d clients were disconnected after rolloutd was killed; the step had %d", n, slow.Close)
	}
	if len(c.left(chat, began)) > 40 {
		t.Error("nobody was left for the steps after rolloutd came back")
	}
	c.works()
	w.must(w.ctl.Start(w.ctx))

	// Clients that stay away hold the rollout in its last phase.
	w.killIn(c, state.Soaking)
	c.streams.keepAway(false)
	c.on(chat, discovery.Green)
	c.on(line, discovery.Green)
	for s, f := range map[discovery.Service]units.Funnel{chat: slow, line: half} {
		id := map[discovery.Service]string{chat: id, line: other}[s]
		r := w.done(s, id)
		if r.Outcome != state.Done {
			t.Errorf("%s ended %s", id, r.Outcome)
		}
		if r.NotBack > 0 {
			t.Errorf("%s never saw %d clients again", id, r.NotBack)
		}
		c.kept(s, began, f, r)
	}

	// And on the way back.
	began = time.Now()
	id = w.promote(chat, api.Promotion{Target: "blue"})
	w.await(chat, "the first evictions", func(st api.Status) bool { return st.Rollout != nil && st.Rollout.Evicted > 10 })
	_, err := w.api.Abort(w.ctx, chat)
	w.must(err)
	w.ctl.Kill()
	w.must(w.ctl.Start(w.ctx))
	w.await(chat, "it to go back", func(st api.Status) bool { return st.Phase == api.Aborting })
	for range 3 { // steps go on as if nobody had died
		w.killIn(c, state.Draining)
	}
	c.on(chat, discovery.Green)
	r := w.done(chat, id)
	if r.Outcome != state.Aborted {
		t.Errorf("%s ended %s", id, r.Outcome)
	}
	c.kept(chat, began, half, r)
}

// killIn waits until the rollout of chat is in a phase, kills rolloutd, and has
// it start again: it goes on in that phase.
func (w *world) killIn(c *crowd, p state.Phase) {
	w.t.Helper()
	w.awaitPhase(chat, p)
	w.ctl.Kill()
	if got := w.stored(chat).Phase(); got != p {
		w.t.Fatalf("killed when it was %s already, and not %s", got, p)
	}
	c.works()
	w.must(w.ctl.Start(w.ctx))
}

// TestRealOperator does all that an operator can do in the middle of a rollout.
func TestRealOperator(t *testing.T) {
	w := start(t, plan{chats: 2, policy: halfPolicy})
	w.startEnvoy("edge-1", w.ctl.XDS)
	w.startEnvoy("edge-2", w.ctl.XDS)
	w.startChat("docs", "docs-b1", discovery.Blue)
	w.must(w.ctl.WriteInstances(w.instances))
	c := w.gather(40)
	c.on(chat, discovery.Blue)
	c.on(line, discovery.Blue)

	began := time.Now()
	// line holds little, so it is let go slowly: its rollout has to be under way, too.
	id, other := w.promote(chat, api.Promotion{Target: "green"}), w.promote(line, api.Promotion{Target: "green", Overrides: policy.Overrides{Close: new(1)}})
	w.await(chat, "the first evictions", func(st api.Status) bool { return st.Rollout.Evicted > 0 })
	w.ctlDo("pause", "--service", "line")
	w.ctlDo("pause", "--service", "chat")
	paused := time.Now()
	c.works()

	// A service by domain on a listener that is there, one on a new listener, and
	// another policy.
	more := w.free()
	rest := strings.Replace(w.rest, "services:\n", fmt.Sprintf("  - {name: more, address: %s}\nservices:\n", more), 1)
	rest = strings.Replace(rest, halfPolicy, "{funnel: 7/700ms, return_timeout: 30s}", 1) +
		"  - {name: docs, listener: web, domains: [docs.example]}\n  - {name: news, listener: more}\n"
	w.must(w.ctl.Configure(rest))
	w.ctl.Reload()
	w.await(chat, "the new policy", func(st api.Status) bool { return st.Policy.Funnel.Close == 7 })
	w.await("docs", "both proxies to confirm the new service", func(st api.Status) bool { return st.Proxies.Confirmed == 2 })
	w.await("news", "both proxies to confirm the new listener", func(st api.Status) bool { return st.Proxies.Confirmed == 2 })
	if on := w.ask("docs.example"); on != "docs-b1" {
		t.Errorf("the new service is served by %q", on)
	}

	// What would end connections is refused as a whole.
	w.must(w.ctl.Configure(strings.Replace(rest, w.web.String(), w.free().String(), 1)))
	w.ctl.Reload()
	w.until("the refusal", func() error {
		if log := w.ctl.Log(); !strings.Contains(log, "reload refused") || !strings.Contains(log, "listener web has another address") {
			return fmt.Errorf("the log is %s", log)
		}
		return nil
	})
	w.must(w.ctl.Configure(rest))

	w.ctl.Stop(patience)
	c.works()
	w.must(w.ctl.Start(w.ctx))
	if err := w.ctl.Err(); err != nil {
		t.Fatal(err)
	}
	w.awaitReason(chat, rollout.Paused)
	c.quiet(chat, 3*half.Every.D())
	if n := len(c.left(chat, paused)); n > 1 { // one may have been on its way
		t.Errorf("%d clients were disconnected in the pause", n)
	}

	w.ctlDo("pace", "--service", "chat", "5/250ms")
	w.ctlDo("resume", "--service", "chat")
	w.ctlDo("resume", "--service", "line")
	before := w.await(chat, "its evictions", func(st api.Status) bool { return st.Rollout != nil }).Rollout.Evicted
	w.await(chat, "more evictions", func(st api.Status) bool { return st.Rollout != nil && st.Rollout.Evicted > before+5 })
	w.ctlDo("abort", "--service", "chat")
	c.on(chat, discovery.Blue)
	c.on(line, discovery.Green)
	if r := w.done(line, other); r.Outcome != state.Done {
		t.Errorf("%s ended %s", other, r.Outcome)
	} else {
		c.kept(line, began, half, r)
	}
	r := w.done(chat, id)
	if r.Outcome != state.Aborted {
		t.Errorf("%s ended %s", id, r.Outcome)
	}
	c.kept(chat, began, half, r)
}

// ctlDo runs rolloutctl as an operator does.
func (w *world) ctlDo(args ...string) string {
	w.t.Helper()
	out, err := w.ctl.Ctl(w.ctx, args...)
	w.must(err)
	return out
}
