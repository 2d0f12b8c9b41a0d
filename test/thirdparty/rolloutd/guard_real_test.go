//go:build real

package rolloutd_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
)

// asks is how many of n new raw connections get through; those are closed again.
func (w *world) asks(n int) (through int) {
	w.t.Helper()
	for range n {
		c, err := net.Dial("tcp", w.raw.String())
		w.must(err)
		_, err = fmt.Fprintln(c, "new")
		if err == nil {
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			_, err = io.ReadFull(c, make([]byte, 1))
		}
		if err == nil {
			through++
		}
		_ = c.Close()
	}
	return through
}

// TestRealGuardReloaded: SIGHUP sets, changes and lifts a storm guard of WebSockets
// and of raw TCP, and nobody is disconnected.
func TestRealGuardReloaded(t *testing.T) {
	t.Parallel()
	w := start(t, plan{chats: 1, policy: halfPolicy})
	w.startEnvoy("edge-1", w.ctl.XDS)
	c := w.gather(20)
	c.on(chat, discovery.Blue)
	c.on(line, discovery.Blue)
	began := time.Now()
	pages := func(n int) (through int) {
		for range n {
			req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, "http://"+w.web.String()+"/", nil)
			w.must(err)
			res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
			w.must(err)
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				through++
			}
		}
		return through
	}
	for _, guard := range []string{", storm_guard: 1/s", "", ", storm_guard: 2/s"} {
		rest := strings.ReplaceAll(w.rest, "listener: web", "listener: web"+guard)
		w.must(w.ctl.Configure(strings.ReplaceAll(rest, "protocol: tcp", "protocol: tcp"+guard)))
		w.ctl.Reload()
		w.until("the guard"+guard, func() error {
			from := time.Now()
			got := []int{pages(30), w.asks(30)}
			most := 30
			if guard != "" {
				most = 3 + 2*int(time.Since(from).Seconds())
			}
			if slices.Max(got) > most || guard == "" && slices.Min(got) < 30 {
				return fmt.Errorf("%v of 30 got through", got)
			}
			return nil
		})
	}
	c.works()
	for _, of := range []discovery.Service{chat, line} {
		if left := c.left(of, began); len(left) > 0 {
			t.Errorf("%s: %d were disconnected: %+v", of, len(left), left[0])
		}
	}
}
