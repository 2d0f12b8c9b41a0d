//go:build real

package rolloutd_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/units"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// inAnotherLanguage is a server that joins by a package of clients/, as its README
// says it: not a word of it is there for these tests.
type inAnotherLanguage struct {
	find  func() ([]string, error)
	path  string   // where it takes WebSockets
	flags []string // beside those of a chat
	// dies: its server ends by the signal, when it has shut down.
	dies bool
	// moves: its clients are moved as well; that of the others is the same package.
	moves bool
}

func languages() map[string]inAnotherLanguage {
	node := func(script string) func() ([]string, error) {
		return func() ([]string, error) { return fleet.NodeScript(script) }
	}
	python := func(script string) func() ([]string, error) {
		return func() ([]string, error) { return fleet.PythonScript("python-chat/" + script) }
	}
	java := func(class string) func() ([]string, error) {
		return func() ([]string, error) { return fleet.JavaMain(class) }
	}
	return map[string]inAnotherLanguage{
		"ws":               {find: node("node-chat/chat.js"), path: "/ws", moves: true},
		"cluster":          {find: node("node-chat/cluster.js"), path: "/ws"},
		"socket.io":        {find: node("socketio/chat.js"), path: "/socket.io/?EIO=4&transport=websocket"}, // moved by TestRealServers
		"websockets":       {find: python("chat.py"), path: "/ws", moves: true},
		"aiohttp":          {find: python("aiohttp_chat.py"), path: "/ws"},
		"fastapi":          {find: python("fastapi_chat.py"), path: "/ws", dies: true, moves: true},
		"fastapi, workers": {find: python("fastapi_chat.py"), path: "/ws", flags: []string{"--workers", "3"}},
		"channels":         {find: python("channels_chat.py"), path: "/ws", dies: true},
		"java-websocket":   {find: java("JavaWebSocketChat"), path: "/ws"},
		"jetty":            {find: java("JettyChat"), path: "/ws", moves: true},
	}
}

// An instance need not be written in Go: whoever speaks the contract is let go
// as gently. They go side by side; all are there before the first is judged, for
// their starts take what the even paces need.
func TestOtherLanguages(t *testing.T) {
	all := languages()
	w := start(t, plan{policy: "{}"})
	instances := map[string]*fleet.Chat{}
	for name, l := range all {
		command, err := l.find()
		w.must(err)
		id := discovery.InstanceID(strings.ReplaceAll(name, ", ", "-"))
		instances[name] = w.startOther(command, id, discovery.Blue, append([]string{"--token", "secret"}, l.flags...)...)
	}
	var judged sync.WaitGroup
	for name, l := range all {
		judged.Go(func() {
			t.Run("conform/"+name, func(t *testing.T) { l.conforms(t, w, instances[name]) })
		})
	}
	for _, stream := range []string{"Feed?one-request", "Talk"} {
		judged.Go(func() {
			t.Run("conform/grpc-go "+stream, func(t *testing.T) {
				in, _ := startRoomOf(t, drain.Options{Token: "secret"}, "room", discovery.Blue)
				conforms(t, w, in.Drain, "grpc://"+in.Address+"/test.Room/"+stream)
			})
		})
	}
	judged.Wait()

	var moved sync.WaitGroup
	for name, l := range all {
		if l.moves {
			moved.Go(func() {
				t.Run("move/"+name, func(t *testing.T) {
					command, err := l.find()
					if err != nil {
						t.Fatal(err)
					}
					moves(start(t, plan{policy: "{funnel: {close: 20, every: 1s}}"}), command, units.Funnel{Close: 20, Every: units.Duration(time.Second)})
				})
			})
		}
	}
	moved.Wait()
}

// startOther starts a chat instance in another language, unregistered.
func (w *world) startOther(command []string, id discovery.InstanceID, c discovery.Colour, flags ...string) *fleet.Chat {
	w.t.Helper()
	p, err := fleet.StartChat(w.ctx, fleet.ChatOptions{Command: command, Dir: w.dir, Name: id, Colour: c, Version: "v1", Flags: flags})
	w.must(err)
	w.t.Cleanup(func() {
		p.Kill()
		if w.t.Failed() {
			w.t.Logf("%s said:\n%s", id, p.Log())
		}
	})
	return p
}

// conforms: an instance of its own keeps every rule, and SIGTERM ends it.
func (l inAnotherLanguage) conforms(t *testing.T, w *world, p *fleet.Chat) {
	conforms(t, w, p.Instance.Drain, "ws://"+p.Instance.Address+l.path)
	p.Stop(10 * time.Second)
	var exit *exec.ExitError
	switch err := p.Err(); {
	case err == nil:
	case l.dies && errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGTERM:
	default:
		t.Errorf("after SIGTERM without connections it ended with %v", err)
	}
	if t.Failed() {
		t.Logf("it said:\n%s", p.Log())
	}
}

// conforms: an instance keeps every rule that there is.
func conforms(t *testing.T, w *world, endpoint, connect string) {
	t.Helper()
	out, err := w.ctl.Ctl(w.ctx, "conform", "http://"+endpoint, "--token", "secret", "--connect", connect)
	if err != nil || !strings.HasSuffix(out, " passed, 0 failed, 0 not checked\n") {
		t.Errorf("conform: %v\n%s", err, out)
	}
}

// moves: 100 clients go from blue to green, each once, under the cap.
func moves(w *world, command []string, f units.Funnel) {
	w.t.Helper()
	for _, c := range discovery.Colours {
		for i := range 2 {
			p := w.startOther(command, discovery.InstanceID(fmt.Sprintf("chat-%.1s%d", c, i+1)), c)
			w.instances[chat] = append(w.instances[chat], p.Instance)
		}
	}
	w.must(w.ctl.WriteInstances(w.instances))
	w.startEnvoy("edge-1", w.ctl.XDS)
	w.await(chat, "the instances", func(st api.Status) bool { return len(st.Instances) == 4 })
	w.until("blue to answer", func() error {
		if at := w.ask("chat"); !strings.HasPrefix(at, "chat-b") {
			return fmt.Errorf("%q answers", at)
		}
		return nil
	})

	swarm, err := clients.New(clients.Options{
		Clients: 100, URLs: []string{"ws://" + w.web.String() + "/ws"}, Ping: 2 * time.Second,
		Reconnect: clients.Reconnect{Base: 50 * time.Millisecond, Max: 500 * time.Millisecond},
	})
	w.must(err)
	ctx, stop := context.WithCancel(w.ctx)
	var run sync.WaitGroup
	run.Go(func() { _ = swarm.Run(ctx) })
	defer run.Wait()
	defer stop()
	all := func(c discovery.Colour) func(clients.Counts) bool {
		return func(now clients.Counts) bool { return now.Colour[string(c)] == swarm.Size() }
	}
	w.must(swarm.WaitFor(w.ctx, all(discovery.Blue)))
	w.must(swarm.Check(w.ctx))

	began := time.Now()
	record := w.done(chat, w.promote(chat, api.Promotion{Target: "green"}))
	w.must(swarm.WaitFor(w.ctx, all(discovery.Green)))
	w.must(swarm.Check(w.ctx))

	var left []clients.Record
	for _, r := range swarm.Records() {
		if r.Kind == clients.Left && r.At.After(began) {
			left = append(left, r)
		}
	}
	(&crowd{w: w}).gently(left, f)
	if len(left) != swarm.Size() || record.Evicted != uint64(swarm.Size()) {
		w.t.Errorf("%d of %d clients were disconnected, %d by the record", len(left), swarm.Size(), record.Evicted)
	}
	if record.NotBack > 0 {
		w.t.Errorf("the record says that at least %d of %d are not back", record.NotBack, swarm.Size())
	}
}
