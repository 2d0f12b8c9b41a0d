package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/rollout/drain"
)

// start serves a chat instance with a gate, and its drain endpoint.
func start(t *testing.T) (gate *drain.Gate, web, endpoint string) {
	gate = drain.New(drain.Options{CountsReturns: true, CloseWait: 100 * time.Millisecond})
	s := newServer(hello{Instance: "chat-b1", Colour: "blue", Version: "v1"}, slog.New(slog.DiscardHandler))
	app, side := httptest.NewServer(s.handler(gate)), httptest.NewServer(gate.Endpoint())
	t.Cleanup(app.Close)
	t.Cleanup(side.Close)
	return gate, app.URL, side.URL
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func order(t *testing.T, endpoint, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, endpoint+"/drain", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body)
		t.Fatalf("order %s: %s: %s", body, resp.Status, b)
	}
}

func dial(t *testing.T, ctx context.Context, web string) *websocket.Conn {
	t.Helper()
	conn, _, err := websocket.Dial(ctx, web+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

func hear(t *testing.T, ctx context.Context, conn *websocket.Conn, want string) {
	t.Helper()
	_, b, err := conn.Read(ctx)
	if err != nil || string(b) != want {
		t.Fatalf("heard %q, %v; want %q", b, err, want)
	}
}

func TestEchoAndBroadcast(t *testing.T) {
	_, web, _ := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, web+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	events := bufio.NewScanner(resp.Body)
	next := func() string {
		for events.Scan() {
			if data, ok := strings.CutPrefix(events.Text(), "data: "); ok {
				return data
			}
		}
		return fmt.Sprint("stream ended: ", events.Err())
	}
	const me = `{"instance":"chat-b1","colour":"blue","version":"v1"}`
	if got := next(); got != me {
		t.Errorf("hello of the event stream: %s", got)
	}

	a, b := dial(t, ctx, web), dial(t, ctx, web)
	for _, conn := range []*websocket.Conn{a, b} {
		hear(t, ctx, conn, me)
		if err := conn.Write(ctx, websocket.MessageText, []byte("hi")); err != nil {
			t.Fatal(err)
		}
		hear(t, ctx, conn, "hi") // both sit in the room now
	}
	if err := a.Write(ctx, websocket.MessageText, []byte("/all good morning")); err != nil {
		t.Fatal(err)
	}
	hear(t, ctx, a, "good morning")
	hear(t, ctx, b, "good morning")
	if got := next(); got != "good morning" {
		t.Errorf("event stream heard %q", got)
	}
	if code, body := get(t, web+"/"); code != http.StatusOK || body != "chat-b1\n" {
		t.Errorf("/: %d %q", code, body)
	}
}

func TestDrainsByOrder(t *testing.T) {
	gate, web, endpoint := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	swarm, err := clients.New(clients.Options{
		Clients: 4, URLs: []string{strings.Replace(web, "http", "ws", 1) + "/ws"},
		Reconnect: clients.Reconnect{Base: 50 * time.Millisecond, Max: 50 * time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(ctx)
	var run sync.WaitGroup
	run.Go(func() { _ = swarm.Run(running) })
	defer run.Wait()
	defer stop()
	if err := swarm.WaitAll(ctx); err != nil {
		t.Fatal(err)
	}

	order(t, endpoint, `{"rollout":"r1","epoch":1,"step":1,"ceiling":1,"over_ms":30,"start_ms":0}`)
	if err := swarm.WaitFor(ctx, func(c clients.Counts) bool { return c.Total == 1 }); err != nil {
		t.Fatal(err)
	}
	for _, r := range swarm.Records() {
		if r.Kind == clients.Left && !r.Planned() {
			t.Errorf("client %d left with %d (%s), want 1012", r.Client, r.Code, r.Cause)
		}
	}
	if code, _ := get(t, web+"/"); code != http.StatusServiceUnavailable {
		t.Errorf("a draining instance answers %d, want 503", code)
	}
	if code, body := get(t, web+"/metrics"); code != http.StatusOK || !strings.Contains(body, "chat_evicted_total 3\n") {
		t.Errorf("metrics: %d\n%s", code, body)
	}

	req, _ := http.NewRequestWithContext(ctx, http.MethodDelete, endpoint+"/drain", strings.NewReader(`{"rollout":"r1","epoch":2}`))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if err := swarm.WaitAll(ctx); err != nil {
		t.Fatal(err)
	}
	if got := gate.Status().Returned; got == nil || *got != 3 {
		t.Errorf("returned is %v, want 3", got)
	}
}

func TestStopsByItself(t *testing.T) {
	for name, args := range map[string][]string{
		"with the library":    {"--listen", "127.0.0.1:0", "--drain", "127.0.0.1:0"},
		"without the library": {"--listen", "127.0.0.1:0", "--feed", "1s"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			stop()
			if err := run(ctx, args, io.Discard); err != nil {
				t.Error(err)
			}
		})
	}
	if err := run(t.Context(), []string{"--listen", "nowhere"}, io.Discard); err == nil {
		t.Error("a failed listen is no error")
	}
	if err := run(t.Context(), []string{"extra"}, io.Discard); err == nil {
		t.Error("an argument is no error")
	}
}
