//go:build real

package drain_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"testing"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// Node's own EventSource brings its ticket without a line for it, and hears of it as little
// as the application does.
func TestRealEventSourceBringsItsTicket(t *testing.T) {
	node, err := fleet.NodePath()
	if err != nil {
		t.Fatal(err)
	}
	opt := drain.Options{TicketKey: "a key of the fleet's"}
	blue, green := newInstance(t, opt, plain, nil), newInstance(t, opt, plain, nil)
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = fmt.Fprintf(w, "retry: 10\nid: 7\ndata: after %q\n\n", r.Header.Get("Last-Event-ID"))
		_ = http.NewResponseController(w).Flush()
		if r.Header.Get("Last-Event-ID") == "" {
			blue.order(t, 1, 0)
		}
		<-r.Context().Done()
	})
	atBlue, atGreen := blue.Handler(app), green.Handler(app)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if blue.Status().State == contract.Serving {
			atBlue.ServeHTTP(w, r)
			return
		}
		atGreen.ServeHTTP(w, r)
	}))
	defer front.Close()
	out, err := exec.CommandContext(t.Context(), node, "--experimental-eventsource", "--no-warnings", "--input-type=module", "--eval", `
		const heard = [], alive = setInterval(() => {}, 1000) // a source that waits for its next try is not
		const source = new EventSource(process.argv[1])
		source.onmessage = (e) => {
			heard.push(e.data, e.lastEventId)
			if (heard.length === 4) { source.close(); clearInterval(alive); process.stdout.write(heard.join(" ")) }
		}`, front.URL).Output()
	if err != nil || string(out) != `after "" 7 after "7" 7` {
		t.Errorf("the page heard %q (%v)", out, err)
	}
	if s := green.Status(); s.Ticketed == nil || *s.Ticketed != 1 {
		t.Errorf("green says %+v, want 1 ticketed", s)
	}
}
