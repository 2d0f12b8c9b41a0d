//go:build real

package rolloutd_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/coder/websocket"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// Who is refused by a server in another language is told so in the words that its
// kind comes back after; health checks are served.
func TestRefusalsInOtherLanguages(t *testing.T) {
	w := start(t, plan{policy: "{}"})
	all := languages()
	instances := map[string]*fleet.Chat{}
	for _, name := range []string{"ws", "websockets", "fastapi", "aiohttp"} {
		command, err := all[name].find()
		w.must(err)
		instances[name] = w.startOther(command, discovery.InstanceID(name), discovery.Blue, "--refusal", "1013")
	}
	var judged sync.WaitGroup
	defer judged.Wait()
	for name, in := range instances {
		judged.Go(func() {
			t.Run(name, func(t *testing.T) { turnsAway(t, w, in, name != "websockets") })
		})
	}
}

func turnsAway(t *testing.T, w *world, in *fleet.Chat, events bool) {
	drains := contract.NewClient("")
	defer drains.Close()
	before, err := drains.Order(w.ctx, "http://"+in.Instance.Drain, contract.Order{Rollout: "refusals", Epoch: 1, Step: 1})
	if err != nil {
		t.Fatal(err)
	}
	get := func(path, accept string) (*http.Response, string) {
		req, err := http.NewRequestWithContext(w.ctx, "GET", "http://"+in.Instance.Address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Error(err)
		}
		return res, string(body)
	}
	refused := uint64(1)
	if events {
		refused = 3
		if res, _ := get("/", "*/*"); res.StatusCode != 503 || res.Header.Get("Retry-After") != "1" || res.Header.Get("X-Sluice-Refused") != "draining" {
			t.Errorf("a request gets %d %v, want 503 with Retry-After and x-sluice-refused", res.StatusCode, res.Header)
		}
		res, body := get("/", "text/event-stream")
		if kind, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";"); res.StatusCode != 200 || kind != "text/event-stream" || body != "retry: 1000\n\n" {
			t.Errorf("an EventSource gets %d %v %q, want 200 with retry", res.StatusCode, res.Header, body)
		}
	}
	if res, body := get("/healthz", "*/*"); res.StatusCode == 503 {
		t.Errorf("a health check is refused: %q", body)
	}
	ws, res, err := websocket.Dial(w.ctx, "ws://"+in.Instance.Address+"/ws", nil)
	if err != nil {
		t.Fatalf("a WebSocket is refused by %v, %v; want 1013", res, err)
	}
	if _, _, err = ws.Read(w.ctx); websocket.CloseStatus(err) != websocket.StatusTryAgainLater {
		t.Errorf("a WebSocket is refused by %v, want 1013", err)
	}
	_ = ws.CloseNow()
	after, err := drains.Status(w.ctx, "http://"+in.Instance.Drain)
	if err != nil || after.Refused != before.Refused+refused || after.Accepted != before.Accepted {
		t.Errorf("%v: refused went from %d to %d and accepted from %d to %d, want %d more and none", err, before.Refused, after.Refused, before.Accepted, after.Accepted, refused)
	}
}

// Of several processes behind one port the one that serves the drain endpoint dies:
// another takes its place, with the order that stands, and the others' connections.
func TestTheNextWorkerServes(t *testing.T) {
	w := start(t, plan{policy: "{}"})
	all := languages()
	instances := map[string]*fleet.Chat{}
	for _, name := range []string{"cluster", "fastapi, workers"} {
		command, err := all[name].find()
		w.must(err)
		id := discovery.InstanceID(strings.ReplaceAll(name, ", ", "-"))
		instances[name] = w.startOther(command, id, discovery.Blue, all[name].flags...)
	}
	var judged sync.WaitGroup
	defer judged.Wait()
	for name, in := range instances {
		judged.Go(func() {
			t.Run(name, func(t *testing.T) { survives(t, w, in) })
		})
	}
}

func survives(t *testing.T, w *world, in *fleet.Chat) {
	drains := contract.NewClient("")
	defer drains.Close()
	endpoint := "http://" + in.Instance.Drain
	w.until("the two other workers to have joined the one that serves the endpoint", func() error {
		all, err := tcp(in.Instance.Drain, "01")
		if err == nil && len(all) < 2 {
			err = fmt.Errorf("%d have", len(all))
		}
		return err
	})
	var held []*websocket.Conn
	for range 12 {
		ws, _, err := websocket.Dial(w.ctx, "ws://"+in.Instance.Address+"/ws", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer ws.CloseNow()
		if _, _, err := ws.Read(w.ctx); err != nil { // who it is
			t.Fatal(err)
		}
		held = append(held, ws)
	}
	w.until("all to be counted", func() error {
		s, err := drains.Status(w.ctx, endpoint)
		if err == nil && s.Active != len(held) {
			err = fmt.Errorf("active is %d, want %d", s.Active, len(held))
		}
		return err
	})
	before, err := drains.Order(w.ctx, endpoint, contract.Order{Rollout: "dies", Epoch: 3, Step: 2})
	if err != nil {
		t.Fatal(err)
	}
	pid, err := listener(in.Instance.Drain)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var after contract.Status
	w.until("another to serve the endpoint", func() (err error) {
		after, err = drains.Status(w.ctx, endpoint)
		if err == nil && after.Boot == before.Boot {
			err = errors.New("it is the same one")
		}
		return err
	})
	if after.State == contract.Serving || after.Epoch != 3 || after.Step != 2 {
		t.Errorf("it says %+v, want the order of epoch 3, step 2", after)
	}
	left := 0 // connections of the others go on
	for _, ws := range held {
		if ws.Ping(ws.CloseRead(w.ctx)) == nil {
			left++
		}
	}
	w.until("the others' connections to be counted", func() error {
		s, err := drains.Status(w.ctx, endpoint)
		if err == nil && s.Active != left {
			err = fmt.Errorf("active is %d, and %d are open", s.Active, left)
		}
		return err
	})
	if left == len(held) { // a port may give them all to one worker, but then to this one as well
		t.Log("nobody was connected to the one that died")
	}
}

// tcp lists the sockets of that state on the port of addr, as /proc names them.
func tcp(addr, state string) (sockets []string, err error) {
	_, port, _ := strings.Cut(addr, ":")
	n, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) > 9 && f[3] == state && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", n)) {
			sockets = append(sockets, "socket:["+f[9]+"]")
		}
	}
	return sockets, nil
}

// listener finds the process that listens there.
func listener(addr string) (pid int, err error) {
	inodes, err := tcp(addr, "0A")
	if err != nil {
		return 0, err
	}
	descriptors, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return 0, err
	}
	for _, path := range descriptors {
		if to, err := os.Readlink(path); err == nil && slices.Contains(inodes, to) {
			return strconv.Atoi(strings.Split(path, "/")[2])
		}
	}
	return 0, fmt.Errorf("no process listens at %s", addr)
}
