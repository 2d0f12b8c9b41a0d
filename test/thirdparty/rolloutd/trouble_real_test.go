//go:build real

package rolloutd_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// TestRealStoreFails: what cannot be remembered is not done; the step that was
// remembered ends, and the next comes when the store is mended.
func TestRealStoreFails(t *testing.T) {
	t.Parallel()
	w := start(t, plan{chats: 2, policy: halfPolicy})
	w.startEnvoy("edge-1", w.ctl.XDS)
	c := w.gather(40)
	c.on(chat, discovery.Blue)
	c.on(line, discovery.Blue)

	began := time.Now()
	id := w.promote(chat, api.Promotion{Target: "green"})
	w.await(chat, "the first evictions", func(st api.Status) bool { return st.Rollout != nil && st.Rollout.Evicted > 0 })
	aside := w.stateFile(chat) + ".aside"
	w.must(os.Rename(w.stateFile(chat), aside))
	w.must(os.Mkdir(w.stateFile(chat), 0o755))
	broken := time.Now()
	w.awaitReason(chat, rollout.StoreFailing)
	c.quiet(chat, 3*half.Every.D())
	if n := len(c.left(chat, broken)); n > half.Close {
		t.Errorf("%d were disconnected after the store broke; the step had %d", n, half.Close)
	}
	_, err := w.api.Abort(w.ctx, chat)
	if r, ok := errors.AsType[*rollout.Refusal](err); !ok || r.Code != rollout.NotStored {
		t.Errorf("abort said %v", err)
	}
	// Another service's state is stored all the same.
	other := w.promote(line, api.Promotion{Target: "green"})
	c.on(line, discovery.Green)
	c.kept(line, began, half, w.done(line, other))
	c.works()

	w.must(os.Remove(w.stateFile(chat)))
	w.must(os.Rename(aside, w.stateFile(chat)))
	c.on(chat, discovery.Green)
	r := w.done(chat, id)
	if r.Outcome != state.Done {
		t.Errorf("%s ended %s", id, r.Outcome)
	}
	c.kept(chat, began, half, r)
}

// TestRealInstanceTrouble: an old instance that hangs, and one that is killed,
// while they drain. The others go on, and the one is named.
func TestRealInstanceTrouble(t *testing.T) {
	t.Parallel()
	w := start(t, plan{chats: 3, policy: halfPolicy})
	w.startEnvoy("edge-1", w.ctl.XDS)
	c := w.gather(40)
	c.on(chat, discovery.Blue)
	c.on(line, discovery.Blue)

	began := time.Now()
	id := w.promote(chat, api.Promotion{Target: "green"})
	w.await(chat, "the first evictions", func(st api.Status) bool { return st.Rollout != nil && st.Rollout.Evicted > 0 })
	hung := w.chat["chat-b2"]
	hung.Signal(syscall.SIGSTOP)
	st := w.awaitReason(chat, rollout.Unreachable)
	if !strings.Contains(st.Reason.Text, "chat-b2") {
		t.Errorf("the reason names nobody: %s", st.Reason.Text)
	}
	if held := st.Rollout.Held; held == nil || *held == 0 {
		t.Errorf("it is said to hold %v", held)
	}
	for _, i := range st.Instances {
		if i.Colour == discovery.Blue && i.ID != "chat-b2" && *i.Held > 0 {
			t.Errorf("%s still holds %d", i.ID, *i.Held)
		}
	}
	hung.Signal(syscall.SIGCONT)
	c.on(chat, discovery.Green)
	c.kept(chat, began, half, w.done(chat, id))

	began = time.Now()
	id = w.promote(chat, api.Promotion{Target: "blue"})
	w.await(chat, "the first evictions", func(st api.Status) bool { return st.Rollout != nil && st.Rollout.Evicted > 0 })
	w.chat["chat-g3"].Kill()
	st = w.awaitReason(chat, rollout.Unreachable)
	if !strings.Contains(st.Reason.Text, "chat-g3") || !strings.Contains(st.Reason.Text, "deregister") {
		t.Errorf("the reason does not say what to do about chat-g3: %s", st.Reason.Text)
	}
	c.on(chat, discovery.Blue)
	w.instances[chat] = slices.DeleteFunc(w.instances[chat], func(in fleet.Instance) bool { return in.ID == "chat-g3" })
	w.must(w.ctl.WriteInstances(w.instances))
	if r := w.done(chat, id); r.Outcome != state.Done {
		t.Errorf("%s ended %s", id, r.Outcome)
	}
	// Those whom the dead instance lost are no fault of the funnel.
	c.gently(slices.DeleteFunc(c.left(chat, began), func(l clients.Record) bool {
		return l.Hello.Instance == "chat-g3" && !l.Planned()
	}), half)
}
