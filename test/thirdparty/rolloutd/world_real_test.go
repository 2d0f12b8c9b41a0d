//go:build real

package rolloutd_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// The two services of every world: one for WebSockets and event streams, one
// for raw TCP.
const (
	chat discovery.Service = "chat"
	line discovery.Service = "line"
)

// patience is how long a test waits for anything.
const patience = time.Minute

var built struct {
	once sync.Once
	dir  string
	bin  fleet.Bin
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// Tests that mostly wait run two at a time; those that judge paces or start ten servers go alone.

// programs are the project's own, built once from the sources of now.
func programs(t *testing.T) fleet.Bin {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "sluice-bin-"); built.err == nil {
			built.bin, built.err = fleet.BuildBin(context.Background(), built.dir)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.bin
}

// plan is what a world is made of.
type plan struct {
	// chats is how many chat processes each colour has.
	chats int
	// flags are further flags of theirs.
	flags []string
	// policy is that of both services, in YAML.
	policy string
	// discovery and state are as in fleet.RolloutdOptions.
	discovery, state string
	// more is more of the configuration, in YAML.
	more string
}

// world is the product as it is used: rolloutd and blue and green instances as
// processes, and as many real Envoys as a test starts. Everything ends with it.
type world struct {
	t    *testing.T
	ctx  context.Context
	dir  string
	ctl  *fleet.Rolloutd
	api  *api.Client
	chat map[discovery.InstanceID]*fleet.Chat
	// web and raw are where every Envoy serves chat and line; between Envoys on
	// one address the kernel spreads the connections.
	web, raw  netip.AddrPort
	instances fleet.Instances
	rest      string
}

func start(t *testing.T, p plan) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	w := &world{t: t, ctx: ctx, dir: t.TempDir(), chat: map[discovery.InstanceID]*fleet.Chat{}, instances: fleet.Instances{}}
	for _, c := range discovery.Colours {
		for i := range p.chats {
			w.startChat(chat, discovery.InstanceID(fmt.Sprintf("chat-%.1s%d", c, i+1)), c, p.flags...)
		}
		w.instances[line] = append(w.instances[line], startLine(t, "line-"+string(c), c))
	}
	w.web, w.raw = w.free(), w.free()
	w.rest = fmt.Sprintf(`%slisteners:
  - {name: web, address: %s}
  - {name: raw, address: %s}
services:
  - {name: chat, listener: web, policy: %s}
  - {name: line, listener: raw, protocol: tcp, policy: %[4]s}
`, p.more, w.web, w.raw, p.policy)
	var err error
	w.ctl, err = fleet.StartRolloutd(ctx, fleet.RolloutdOptions{
		Bin: programs(t), Dir: w.dir, Instances: w.instances, Discovery: p.discovery, State: p.state, Rest: w.rest,
	})
	w.must(err)
	t.Cleanup(func() {
		w.ctl.Kill()
		if t.Failed() {
			t.Logf("rolloutd said:\n%s", w.ctl.Log())
		}
	})
	w.api, err = w.ctl.Client()
	w.must(err)
	return w
}

// startChat starts an instance and has it registered with the next WriteInstances.
func (w *world) startChat(of discovery.Service, id discovery.InstanceID, c discovery.Colour, flags ...string) *fleet.Chat {
	w.t.Helper()
	p, err := fleet.StartChat(w.ctx, fleet.ChatOptions{Bin: programs(w.t), Dir: w.dir, Name: id, Colour: c, Version: "v1", Flags: flags})
	w.must(err)
	w.t.Cleanup(p.Kill)
	w.chat[id] = p
	w.instances[of] = append(w.instances[of], p.Instance)
	return p
}

// startEnvoy starts one that talks to rolloutd through xds, and waits until it
// serves both services.
func (w *world) startEnvoy(node string, xds netip.AddrPort) *realEnvoy {
	w.t.Helper()
	return w.startEdge(fleet.EnvoyOptions{Node: node, XDS: xds, Dir: w.dir, Concurrency: 2})
}

func (w *world) startEdge(o fleet.EnvoyOptions) *realEnvoy {
	w.t.Helper()
	node := o.Node
	p, admin, err := fleet.StartEnvoy(w.ctx, o)
	w.must(err)
	w.t.Cleanup(func() {
		p.Kill()
		if w.t.Failed() {
			w.t.Logf("%s said:\n%s", node, p.Log())
		}
	})
	w.must(p.Await(w.ctx, fleet.Accepts(admin, w.web)))
	w.must(p.Await(w.ctx, fleet.Accepts(admin, w.raw)))
	for _, s := range []discovery.Service{chat, line} {
		w.await(s, node+" to acknowledge", func(st api.Status) bool { return st.Proxies.Confirmed == st.Proxies.Connected })
	}
	return &realEnvoy{Process: p, admin: admin}
}

// realEnvoy is a running one.
type realEnvoy struct {
	*fleet.Process
	admin netip.AddrPort
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) free() netip.AddrPort {
	w.t.Helper()
	addr, err := fleet.FreeAddr()
	w.must(err)
	return addr
}

// until polls a condition, which says what is still missing.
func (w *world) until(what string, missing func() error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	for {
		err := missing()
		if err == nil {
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			w.t.Fatalf("waiting for %s: %v", what, err)
		}
	}
}

// await polls a service's status until it is as wanted.
func (w *world) await(s discovery.Service, what string, ok func(api.Status) bool) (st api.Status) {
	w.t.Helper()
	w.until(what, func() error {
		now, err := w.api.Service(w.ctx, s)
		if err != nil {
			return err
		}
		if st = now; !ok(st) {
			return fmt.Errorf("%s is %s, %s: %s", s, st.Phase, st.Reason.Code, st.Reason.Text)
		}
		return nil
	})
	return st
}

// awaitPhase waits until the rollout itself is in a phase, whichever way it goes.
func (w *world) awaitPhase(s discovery.Service, p state.Phase) api.Status {
	w.t.Helper()
	return w.await(s, fmt.Sprintf("%s to be %s", s, p), func(st api.Status) bool { return phase(st) == p })
}

func (w *world) awaitReason(s discovery.Service, c rollout.Code) api.Status {
	w.t.Helper()
	return w.await(s, fmt.Sprintf("%s to say %s", s, c), func(st api.Status) bool { return st.Reason.Code == c })
}

// done waits for the end of a rollout and returns what is remembered of it.
func (w *world) done(s discovery.Service, id string) (r state.Record) {
	w.t.Helper()
	w.await(s, "the end of "+id, func(st api.Status) bool { return st.Last != nil && st.Last.ID == id })
	all, err := w.api.History(w.ctx, s)
	w.must(err)
	return all[len(all)-1]
}

// phase is that of the rollout, also while it goes back.
func phase(st api.Status) state.Phase {
	if st.Rollout == nil {
		return state.Steady
	}
	return st.Rollout.Phase
}

// promote waits until nothing speaks against it, such as instances that were not
// asked yet, and returns the id of the rollout.
func (w *world) promote(s discovery.Service, p api.Promotion) string {
	w.t.Helper()
	w.until("a plan without problems", func() error {
		plan, err := w.api.Plan(w.ctx, s, p)
		if err == nil && len(plan.Problems) > 0 && !p.Force {
			err = errors.New(strings.Join(plan.Problems, "; "))
		}
		return err
	})
	answer, err := w.api.Promote(w.ctx, s, p)
	w.must(err)
	return answer.Rollout
}

// stored is the state as it lies in the store.
func (w *world) stored(s discovery.Service) state.State {
	w.t.Helper()
	data, err := os.ReadFile(w.stateFile(s))
	w.must(err)
	stored, err := state.DecodeOf(s, data)
	w.must(err)
	return stored
}

func (w *world) stateFile(s discovery.Service) string {
	return filepath.Join(w.dir, "state", string(s)+".json")
}

// ask does one plain request through Envoy and returns which instance answered.
func (w *world) ask(host string) string {
	w.t.Helper()
	return strings.TrimSpace(w.get(w.web, "/", host))
}

// page is what an HTTP server answers at a path.
func (w *world) page(at netip.AddrPort, path string) string {
	w.t.Helper()
	return w.get(at, path, at.String())
}

func (w *world) get(at netip.AddrPort, path, host string) string {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, "http://"+at.String()+path, nil)
	w.must(err)
	req.Host = host
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	w.must(err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	w.must(err)
	return string(b)
}
