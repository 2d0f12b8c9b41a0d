//go:build real

package rolloutd_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// TestRealLostState: the state folder is lost while green serves and blue has drained,
// then in the middle of a rollout. Nobody is disconnected and no new connection is sent
// to who drains, over HTTP and over raw TCP.
func TestRealLostState(t *testing.T) {
	t.Parallel()
	w := start(t, plan{chats: 2, policy: halfPolicy})
	w.startEnvoy("edge-1", w.ctl.XDS)
	w.startEnvoy("edge-2", w.ctl.XDS)
	c := w.gather(20)
	c.on(chat, discovery.Blue)
	c.on(line, discovery.Blue)
	for _, s := range []discovery.Service{chat, line} {
		w.done(s, w.promote(s, api.Promotion{Target: "green"}))
	}
	c.on(chat, discovery.Green)
	c.on(line, discovery.Green)

	w.loseState(c, "chat-g")
	for _, s := range []discovery.Service{chat, line} {
		w.await(s, "green to be live again", func(st api.Status) bool {
			return st.Live == discovery.Green && st.Last != nil && st.Last.Outcome == state.Adopted
		})
	}
	id := w.promote(chat, api.Promotion{Target: "blue"})
	w.await(chat, "the first evictions", func(st api.Status) bool { return st.Rollout != nil && st.Rollout.Evicted > 0 })
	w.loseState(c, "chat-b")
	if st := w.await(chat, "blue to be live", func(st api.Status) bool { return st.Live == discovery.Blue }); st.Last.ID == id {
		t.Errorf("the epoch of %s was used again", id)
	}
}

// loseState kills rolloutd, removes what it remembers, and starts it again. Until it has
// found which colour is live, and then, everybody goes to instances of that name.
func (w *world) loseState(c *crowd, name string) {
	w.t.Helper()
	w.ctl.Kill()
	began := time.Now()
	w.must(os.RemoveAll(filepath.Join(w.dir, "state")))
	w.must(w.ctl.Start(w.ctx))
	for end := began.Add(8 * time.Second); time.Now().Before(end); {
		if who := w.ask("chat"); !strings.HasPrefix(who, name) {
			w.t.Fatalf("a new connection is answered by %q", who)
		}
	}
	if n := len(c.left(chat, began.Add(2*half.Every.D()))); n > 0 {
		w.t.Errorf("%d clients were disconnected since the state was lost", n)
	}
	c.works()
}
