package outside

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/units"
)

type orders = map[discovery.InstanceID]desired.HookOrder

// order is for an instance, whose id ends in a digit.
func order(id discovery.InstanceID, attempt int, hook policy.Hook) desired.HookOrder {
	return desired.HookOrder{
		Service: "chat", Instance: id, Colour: discovery.Blue, Addr: netip.MustParseAddrPort("10.0.0." + string(id[len(id)-1:]) + ":9000"),
		Rollout: "chat-1", Attempt: attempt, Hook: hook,
	}
}

func newHooks(t *testing.T) *Hooks {
	t.Helper()
	h := NewHooks(slog.New(slog.DiscardHandler))
	t.Cleanup(h.web.close)
	return h
}

// ended waits for the end of one attempt.
func ended(t *testing.T, h *Hooks, id discovery.InstanceID, attempt int) (r observed.HookRun) {
	t.Helper()
	until(t, func() string {
		r = h.Runs("chat")[id]
		if r.Done && r.Attempt == attempt {
			return ""
		}
		return fmt.Sprintf("%s: %+v", id, r)
	})
	return r
}

func TestHookCommand(t *testing.T) {
	t.Setenv("CONSUL_HTTP_TOKEN", "secret")
	log := filepath.Join(t.TempDir(), "log")
	hook := policy.Hook{Command: []string{script(t,
		`echo "$SLUICE_SERVICE $SLUICE_INSTANCE $SLUICE_COLOUR $SLUICE_ADDRESS $SLUICE_ROLLOUT ${CONSUL_HTTP_TOKEN-none} $*" >>`+log+`
		case $SLUICE_INSTANCE in *2) echo 'no such allocation'; exit 7;; esac`), "--now", "$HOME; `id`"}}
	h := newHooks(t)
	notices, _ := running(t, h.Run)
	before := time.Now()
	h.Call("chat", orders{"chat-b1": order("chat-b1", 1, hook), "chat-b2": order("chat-b2", 1, hook)})
	if r := ended(t, h, "chat-b1", 1); r.Err != "" || r.Rollout != "chat-1" || r.At.Before(before) {
		t.Errorf("%+v", r)
	}
	if r := ended(t, h, "chat-b2", 1); r.Err != "program exits with 7: no such allocation" {
		t.Errorf("%+v", r)
	}
	<-notices
	<-notices
	// The same again calls nothing, also after it was not wished for a while.
	for range 3 {
		h.Call("chat", orders{"chat-b1": order("chat-b1", 1, hook), "chat-b2": order("chat-b2", 1, hook)})
		h.Call("chat", nil)
	}
	h.Call("chat", orders{"chat-b1": order("chat-b1", 1, hook), "chat-b2": order("chat-b2", 2, hook)})
	ended(t, h, "chat-b2", 2)
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	slices.Sort(lines)
	want := []string{
		"chat chat-b1 blue 10.0.0.1:9000 chat-1 none --now $HOME; `id`",
		"chat chat-b2 blue 10.0.0.2:9000 chat-1 none --now $HOME; `id`",
		"chat chat-b2 blue 10.0.0.2:9000 chat-1 none --now $HOME; `id`",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("called\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

func TestHookURL(t *testing.T) {
	var code atomic.Int32
	code.Store(503)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if want := `{"service":"chat","instance":"chat-b1","colour":"blue","address":"10.0.0.1:9000","rollout":"chat-1"}`; r.Method != http.MethodPost ||
			r.Header.Get("Content-Type") != "application/json" || string(body) != want {
			t.Errorf("%s %v %s", r.Method, r.Header, body)
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(int(code.Load()))
		_, _ = io.WriteString(w, "the queue\nis full")
	}))
	t.Cleanup(srv.Close)
	h := newHooks(t)
	running(t, h.Run)
	hook, at := policy.Hook{URL: srv.URL + "/stop?key=secret"}, strings.TrimPrefix(srv.URL, "http://")
	for i, c := range []struct {
		code int32
		want string
	}{{503, at + " answers 503: the queue is full"}, {307, at + " answers 307: the queue is full"}, {202, ""}} {
		code.Store(c.code)
		h.Call("chat", orders{"chat-b1": order("chat-b1", i+1, hook)})
		if r := ended(t, h, "chat-b1", i+1); r.Err != c.want {
			t.Errorf("%+v, want %q", r, c.want)
		}
	}
}

// A hook that hangs is killed with what it started, and is a failure.
func TestHookThatHangs(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	hook := policy.Hook{Command: []string{script(t, "sleep 600 & echo $! >"+pids+"; echo stopping; wait")}, Timeout: units.Duration(time.Second)}
	h := newHooks(t)
	running(t, h.Run)
	h.Call("chat", orders{"chat-b1": order("chat-b1", 1, hook)})
	until(t, func() string {
		if r := h.Runs("chat")["chat-b1"]; r.Attempt != 1 || r.Done {
			return fmt.Sprintf("it is not seen to run: %+v", r)
		}
		return ""
	})
	h.Call("chat", nil) // ends nothing
	if r := ended(t, h, "chat-b1", 1); r.Err != "program gives no answer within 1s: stopping" {
		t.Errorf("%+v", r)
	}
	until(t, func() string { return alive(t, pids) })
}

// At most 16 at once, each once, one at a time for an instance; time is fake.
func TestManyHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHooks(t)
		var asked atomic.Int32
		h.web.transport.DialContext = slowly(t, time.Second, &asked)
		notices, stop := running(t, h.Run)
		hook := policy.Hook{URL: "http://hook/"}
		call := func(attempt, n int) {
			all := orders{}
			for i := range n {
				id := discovery.InstanceID(fmt.Sprintf("chat-%d", i))
				all[id] = order(id, attempt, hook)
			}
			h.Call("chat", all)
			synctest.Wait()
		}
		call(1, 40)
		if asked.Load() != 16 || len(h.Runs("chat")) != 16 {
			t.Errorf("%d at once, %d runs", asked.Load(), len(h.Runs("chat")))
		}
		time.Sleep(1500 * time.Millisecond)
		if asked.Load() != 32 || len(notices) != 16 {
			t.Errorf("%d called after one second, %d notices", asked.Load(), len(notices))
		}
		h.Call("chat", nil) // the 8 whose turn has not come are not called
		time.Sleep(3 * time.Second)
		if asked.Load() != 32 || len(notices) != 32 || len(h.Runs("chat")) != 32 {
			t.Errorf("%d called, %d notices, %d runs", asked.Load(), len(notices), len(h.Runs("chat")))
		}
		call(1, 40)
		time.Sleep(2 * time.Second)
		if asked.Load() != 40 {
			t.Errorf("%d called, want the missing 8", asked.Load())
		}
		// A newer order waits for the running call of its instance.
		call(2, 1)
		call(3, 1)
		if asked.Load() != 41 || h.Runs("chat")["chat-0"].Attempt != 2 {
			t.Errorf("%d called, %+v", asked.Load(), h.Runs("chat")["chat-0"])
		}
		time.Sleep(1500 * time.Millisecond)
		if r := h.Runs("chat")["chat-0"]; asked.Load() != 42 || r.Attempt != 3 || r.Done {
			t.Errorf("%d called, %+v", asked.Load(), r)
		}
		call(2, 1) // an older one is old
		time.Sleep(3 * time.Second)
		if asked.Load() != 42 {
			t.Errorf("%d called", asked.Load())
		}
		stop()
	})
}

// What was called in a rollout is forgotten when another one calls.
func TestHooksOfAnotherRollout(t *testing.T) {
	var mu sync.Mutex
	var rollouts []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var told struct{ Rollout, Instance string }
		_ = json.NewDecoder(r.Body).Decode(&told)
		mu.Lock()
		defer mu.Unlock()
		rollouts = append(rollouts, told.Rollout+" "+told.Instance)
	}))
	t.Cleanup(srv.Close)
	h := newHooks(t)
	running(t, h.Run)
	hook := policy.Hook{URL: srv.URL}
	h.Call("chat", orders{"chat-b1": order("chat-b1", 4, hook), "chat-b2": order("chat-b2", 1, hook)})
	ended(t, h, "chat-b1", 4)
	ended(t, h, "chat-b2", 1)
	next := order("chat-b1", 1, hook)
	next.Rollout = "chat-3"
	h.Call("chat", orders{"chat-b1": next})
	if r := ended(t, h, "chat-b1", 1); r.Rollout != "chat-3" {
		t.Errorf("%+v", r)
	}
	if r := h.Runs("chat"); len(r) != 1 || len(h.Runs("feed")) != 0 {
		t.Errorf("%v", r)
	}
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(rollouts)
	if got := strings.Join(rollouts, ", "); got != "chat-1 chat-b1, chat-1 chat-b2, chat-3 chat-b1" {
		t.Error(got)
	}
}

// When rolloutd stops, what runs is killed and does not count as called.
func TestHooksEndWithRolloutd(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	hook := policy.Hook{Command: []string{script(t, "echo $$ >"+pids+"; exec sleep 600")}}
	h := newHooks(t)
	notices, stop := running(t, h.Run)
	h.Call("chat", orders{"chat-b1": order("chat-b1", 1, hook)})
	until(t, func() string {
		if data, err := os.ReadFile(pids); err != nil || len(data) == 0 {
			return "it never ran"
		}
		return ""
	})
	stop()
	if r := h.Runs("chat")["chat-b1"]; r.Done || len(notices) > 0 {
		t.Errorf("%+v", r)
	}
	until(t, func() string { return alive(t, pids) })
}
