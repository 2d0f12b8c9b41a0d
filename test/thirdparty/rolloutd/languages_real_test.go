//go:build real

package rolloutd_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/units"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// An instance need not be written in Go: whoever speaks the contract is let go
// as gently. The two languages go side by side, which halves the time.
func TestOtherLanguages(t *testing.T) {
	for language, find := range map[string]func() ([]string, error){"node": fleet.NodeChat, "python": fleet.PythonChat} {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			command, err := find()
			if err != nil {
				t.Fatal(err)
			}
			w := start(t, plan{policy: "{funnel: {close: 20, every: 1s}}"})
			conforms(w, command)
			moves(w, command, units.Funnel{Close: 20, Every: units.Duration(time.Second)})
		})
	}
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
func conforms(w *world, command []string) {
	w.t.Helper()
	p := w.startOther(command, "chat-x", discovery.Blue, "--token", "secret")
	out, err := w.ctl.Ctl(w.ctx, "conform", "http://"+p.Instance.Drain, "--token", "secret", "--connect", "ws://"+p.Instance.Address+"/ws")
	if err != nil || !strings.HasSuffix(out, " passed, 0 failed, 0 not checked\n") {
		w.t.Errorf("conform: %v\n%s", err, out)
	}
	p.Stop(10 * time.Second)
	if err := p.Err(); err != nil {
		w.t.Errorf("after SIGTERM without connections it ended with %v", err)
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
