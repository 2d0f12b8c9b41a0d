//go:build real

package rolloutd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// TestRealHook: old instances without a drain endpoint are ended by the hook, one
// after the other. A hook that fails is called again, and says meanwhile why the
// rollout waits.
func TestRealHook(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	// It ends the instance whose process id it finds, as an orchestrator would.
	hook := executable(t, dir, `cd `+dir+`
		echo "$SLUICE_INSTANCE $SLUICE_COLOUR $SLUICE_SERVICE $SLUICE_ROLLOUT $SLUICE_ADDRESS" >>log
		test -e ready || { echo 'the orchestrator is not ready'; exit 3; }
		kill $(cat $SLUICE_INSTANCE.pid)`)
	w := start(t, plan{chats: 2, policy: "{funnel: 100/500ms, return_timeout: 30s, hook: {command: [" + hook + "], timeout: 10s}}"})
	for i := range w.instances[chat] {
		in := &w.instances[chat][i]
		w.must(os.WriteFile(filepath.Join(dir, string(in.ID)+".pid"), fmt.Append(nil, w.chat[in.ID].PID()), 0o600))
		in.Drain = []string{"", discovery.Hook}[i%2]
	}
	w.must(w.ctl.WriteInstances(w.instances))
	w.startEnvoy("edge-1", w.ctl.XDS)
	c := w.gather(40)
	c.on(chat, discovery.Blue)

	id := w.promote(chat, api.Promotion{Target: "green", Force: true})
	w.await(chat, "the hook's failure to be shown", func(st api.Status) bool {
		return strings.Contains(st.Reason.Text, "program exits with 3: the orchestrator is not ready")
	})
	if n := len(c.left(chat, time.Time{})); n > 0 {
		t.Errorf("%d were disconnected before an instance was ended", n)
	}
	w.must(os.WriteFile(filepath.Join(dir, "ready"), nil, 0o600))
	c.on(chat, discovery.Green)
	if r := w.done(chat, id); r.Outcome != state.Done {
		t.Errorf("%s ended %s", id, r.Outcome)
	}
	data, err := os.ReadFile(log)
	w.must(err)
	calls := strings.Split(strings.TrimSpace(string(data)), "\n")
	for _, in := range w.instances[chat] {
		want := fmt.Sprintf("%s blue chat %s %s", in.ID, id, in.Address)
		if called := slices.Contains(calls, want); called != (in.Colour == discovery.Blue) {
			t.Errorf("%s: called %t\n%s", in.ID, called, data)
		}
	}
	for _, r := range c.left(chat, time.Time{}) {
		if r.Hello.Colour != string(discovery.Blue) {
			t.Errorf("client %d was disconnected from %s", r.Client, r.Hello.Instance)
		}
	}
}
