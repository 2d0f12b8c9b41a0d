//go:build real

package rolloutd_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
)

// TestRealRoutingFollowsReadiness: a live side without a healthy instance keeps
// its connections and its endpoints; new connections get 503 and never another
// colour, until one is healthy again.
func TestRealRoutingFollowsReadiness(t *testing.T) {
	t.Parallel()
	w := start(t, plan{chats: 2, policy: halfPolicy})
	w.startEnvoy("edge-1", w.ctl.XDS)
	c := w.gather(20)
	c.on(chat, discovery.Blue)
	c.on(line, discovery.Blue)

	w.blueIs(discovery.Critical)
	w.awaitReason(chat, rollout.NoHealthyLive)
	w.until("new connections to get 503", func() error { return w.answers(http.StatusServiceUnavailable) })
	c.works()
	if _, err := w.api.Promote(w.ctx, chat, api.Promotion{Target: "blue"}); err != nil {
		t.Errorf("promoting the live colour: %v", err)
	}

	w.blueIs(discovery.Maintenance)
	w.await(chat, "maintenance", func(st api.Status) bool {
		return len(st.Instances) > 0 && st.Instances[0].Health == discovery.Maintenance
	})
	if err := w.answers(http.StatusServiceUnavailable); err != nil {
		t.Error(err)
	}

	w.blueIs(discovery.Warning)
	w.await(chat, "blue to be live again", func(st api.Status) bool { return st.Reason.Code == rollout.IsSteady })
	w.until("new connections to be served", func() error { return w.answers(http.StatusOK) })
	c.works()
}

// blueIs gives every blue chat instance a health.
func (w *world) blueIs(h discovery.Health) {
	w.t.Helper()
	for i, in := range w.instances[chat] {
		if in.Colour == discovery.Blue {
			w.instances[chat][i].Health = h
		}
	}
	w.must(w.ctl.WriteInstances(w.instances))
}

// answers does one plain request through Envoy on a connection of its own.
func (w *world) answers(want int) error {
	req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, "http://"+w.web.String()+"/", nil)
	if err != nil {
		return err
	}
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != want {
		return fmt.Errorf("the answer is %d, not %d", res.StatusCode, want)
	}
	return nil
}
