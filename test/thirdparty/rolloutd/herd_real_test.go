//go:build real

package rolloutd_test

import (
	"fmt"
	"regexp"
	"strconv"
	"testing"

	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/rollout/api"
)

// TestRealLimitOfInstances: instances say their limit, the Envoys share the sum of
// it and refuse the rest of a herd by themselves.
func TestRealLimitOfInstances(t *testing.T) {
	w := start(t, plan{chats: 2, policy: "{funnel: 100/1s}", flags: []string{"--limit", "20"}})
	w.startEnvoy("edge-1", w.ctl.XDS)
	w.startEnvoy("edge-2", w.ctl.XDS)
	w.await(chat, "both proxies", func(s api.Status) bool { return s.Proxies.Confirmed == 2 })
	herd, _ := w.sockets(w.web, 100)
	most := 0
	w.until("the herd to be held at the limit", func() error {
		n := herd.Connected().Total
		most = max(most, n)
		overflow := w.overflow()
		if n == 40 && overflow >= 100 {
			return nil
		}
		return fmt.Errorf("%d are connected, the proxies refused %d", n, overflow)
	})
	if most > 40 {
		t.Errorf("%d were connected, the instances' limits are 40", most)
	}
	for _, r := range herd.Records() {
		if r.Kind == clients.Refused && r.Status != 503 {
			t.Fatalf("client %d was refused with %d: %s", r.Client, r.Status, r.Cause)
		}
	}
}

var overflowed = regexp.MustCompile(`(?m)^sluice_overflow_total\{[^}]*service="chat"[^}]*\} (\d+)`)

// overflow is how many connections of chat the proxies refused by themselves.
func (w *world) overflow() (n int) {
	w.t.Helper()
	for _, m := range overflowed.FindAllStringSubmatch(w.page(w.ctl.API, "/metrics"), -1) {
		x, err := strconv.Atoi(m[1])
		w.must(err)
		n += x
	}
	return n
}
