//go:build real

package rolloutd_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/units"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// product is a server that nobody here wrote, with the clients of its own world.
type product struct {
	service discovery.Service
	// protocol is how Envoy serves it, mode how much the sidecar looks at.
	protocol, mode string
	// serve starts one, unmodified, and returns its address and what ends it.
	serve func(w *world, id discovery.InstanceID, c discovery.Colour) (addr string, stop func())
	// connect connects as many clients as the guests are, who reconnect by their
	// library alone and whose doings are noted. The talk that it returns has each
	// client say something that has to go through its server to be heard again.
	connect func(w *world, addr netip.AddrPort, g *guests) (talk func(context.Context) error)
	// joins is the command of a server that speaks the contract itself, in place of
	// serve and the sidecar; it takes the flags of a chat.
	joins func() ([]string, error)
}

// TestRealServers: the clients of servers that know nothing of rollouts go from
// blue to green at the funnel's pace, each once, and find their way by what their
// own libraries do. The four rollouts go side by side.
func TestRealServers(t *testing.T) {
	w := start(t, plan{policy: "{}"})
	all := []product{natsServer, mochi, socketIO, socketIOJoins}
	at := map[discovery.Service]netip.AddrPort{}
	var listeners, services strings.Builder
	for _, p := range all {
		at[p.service] = w.free()
		fmt.Fprintf(&listeners, "  - {name: %s, address: %s}\n", p.service, at[p.service])
		fmt.Fprintf(&services, "  - {name: %s, listener: %[1]s, protocol: %s, policy: {funnel: {close: 20, every: 1s}, return_timeout: 3s}}\n", p.service, p.protocol)
	}
	w.must(w.ctl.Configure(strings.Replace(w.rest, "services:\n", listeners.String()+"services:\n", 1) + services.String()))
	w.ctl.Reload()
	edges := []*realEnvoy{w.startEnvoy("edge-1", w.ctl.XDS), w.startEnvoy("edge-2", w.ctl.XDS)}

	stops := map[discovery.Service][]func(){}
	for _, p := range all {
		for _, c := range discovery.Colours {
			for i := range 2 {
				id := discovery.InstanceID(fmt.Sprintf("%s-%.1s%d", p.service, c, i+1))
				if p.joins != nil {
					command, err := p.joins()
					w.must(err)
					in := w.startOther(command, id, c)
					w.instances[p.service] = append(w.instances[p.service], in.Instance)
					if c == discovery.Blue {
						stops[p.service] = append(stops[p.service], func() { in.Stop(patience) })
					}
					continue
				}
				addr, stop := p.serve(w, id, c)
				car := w.startSidecar(id, c, addr, p.mode)
				w.instances[p.service] = append(w.instances[p.service], car.Instance)
				if c == discovery.Blue {
					stops[p.service] = append(stops[p.service], stop, func() { car.Stop(patience) })
				}
			}
		}
	}
	w.must(w.ctl.WriteInstances(w.instances))
	for _, p := range all {
		for _, e := range edges {
			w.must(e.Await(w.ctx, fleet.Accepts(e.admin, at[p.service])))
		}
		w.await(p.service, "four instances that both proxies know", func(st api.Status) bool {
			return len(st.Instances) == 4 && st.Proxies.Connected == 2 && st.Proxies.Confirmed == 2
		})
	}
	var moving sync.WaitGroup
	defer moving.Wait()
	for _, p := range all {
		moving.Go(func() {
			t.Run(string(p.service), func(t *testing.T) {
				own := *w
				own.t = t
				p.moves(&own, at[p.service], stops[p.service])
			})
		})
	}
}

// startSidecar starts one before the server at to, unregistered.
func (w *world) startSidecar(id discovery.InstanceID, c discovery.Colour, to, mode string) *fleet.Sidecar {
	w.t.Helper()
	p, err := fleet.StartSidecar(w.ctx, fleet.SidecarOptions{
		Bin: programs(w.t), Dir: w.dir, Name: id, Colour: c, Version: "v1", To: to, Flags: []string{"--mode", mode},
	})
	w.must(err)
	w.t.Cleanup(func() {
		p.Kill()
		if w.t.Failed() {
			w.t.Logf("the sidecar of %s said:\n%s", id, p.Log())
		}
	})
	return p
}

// moves: 200 clients go from blue to green, and afterwards nobody notices that
// the blue servers end.
func (p product) moves(w *world, at netip.AddrPort, stopBlue []func()) {
	w.t.Helper()
	f := units.Funnel{Close: 20, Every: units.Duration(time.Second)}
	g := &guests{size: 200, now: map[int]clients.Hello{}}
	talk := p.connect(w, at, g)
	talked := func() {
		w.t.Helper()
		ctx, cancel := context.WithTimeout(w.ctx, patience)
		defer cancel()
		w.must(talk(ctx))
	}
	w.until("all on blue", func() error { return g.missing(discovery.Blue) })
	talked()

	began := time.Now()
	record := w.done(p.service, w.promote(p.service, api.Promotion{Target: "green"}))
	w.until("all on green", func() error { return g.missing(discovery.Green) })
	talked()

	drains := contract.NewClient("")
	defer drains.Close()
	evicted := map[discovery.Colour]uint64{}
	for _, in := range w.instances[p.service] {
		status, err := drains.Status(w.ctx, "http://"+in.Drain)
		w.must(err)
		evicted[in.Colour] += status.Evicted
	}
	if evicted[discovery.Blue] != 200 || evicted[discovery.Green] != 0 || record.Evicted != 200 {
		w.t.Errorf("evicted are %v, by the record %d; want 200 from blue", evicted, record.Evicted)
	}
	for _, stop := range stopBlue {
		stop()
	}
	talked()

	all := g.since(began)
	left := slices.DeleteFunc(slices.Clone(all), func(r clients.Record) bool { return r.Kind != clients.Left })
	(&crowd{w: w}).gently(left, f)
	for i := range g.size {
		mine := slices.DeleteFunc(slices.Clone(all), func(r clients.Record) bool { return r.Client != i })
		if len(mine) != 2 || mine[0].Kind != clients.Left || mine[1].Kind != clients.Joined || mine[1].Hello.Colour != string(discovery.Green) {
			w.t.Errorf("client %d went through %+v, want one disconnect and green at once", i, mine)
		}
	}
	if w.t.Failed() {
		return
	}
	w.t.Logf("%d disconnected within %s, the last on green %s later", len(left),
		left[len(left)-1].At.Sub(left[0].At).Round(time.Millisecond), all[len(all)-1].At.Sub(left[len(left)-1].At).Round(time.Millisecond))
}

// guests are clients who note what they go through. Methods may be called
// concurrently.
type guests struct {
	size int

	mu      sync.Mutex
	records []clients.Record
	now     map[int]clients.Hello // who is connected, and to what
}

func (g *guests) joined(i int, to clients.Hello) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now[i] = to
	g.records = append(g.records, clients.Record{At: time.Now(), Client: i, Kind: clients.Joined, Hello: to})
}

// joinedAt is joined at the instance with that name, whose colour it tells.
func (g *guests) joinedAt(i int, name string) {
	for _, c := range discovery.Colours {
		if strings.Contains(name, fmt.Sprintf("-%.1s", c)) {
			g.joined(i, clients.Hello{Instance: name, Colour: string(c)})
			return
		}
	}
	g.refused(i, fmt.Errorf("connected to %q, which has no colour", name))
}

// left: planned is whether the connection ended as the sidecar ends it.
func (g *guests) left(i int, planned bool, cause string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := clients.Record{At: time.Now(), Client: i, Kind: clients.Left, Hello: g.now[i], Code: -1, Cause: cause}
	if planned {
		r.Code = websocket.StatusServiceRestart
	}
	delete(g.now, i)
	g.records = append(g.records, r)
}

func (g *guests) refused(i int, cause error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.records = append(g.records, clients.Record{At: time.Now(), Client: i, Kind: clients.Refused, Cause: cause.Error()})
}

func (g *guests) missing(colour discovery.Colour) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, to := range g.now {
		if to.Colour == string(colour) {
			n++
		}
	}
	if n == g.size {
		return nil
	}
	return fmt.Errorf("of %d there are %d", g.size, n)
}

func (g *guests) since(t time.Time) []clients.Record {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(g.records), func(r clients.Record) bool { return r.At.Before(t) })
}

// each does something for every guest, a few at a time.
func (g *guests) each(do func(i int) error) error {
	var all sync.WaitGroup
	errs := make([]error, g.size)
	turns := make(chan struct{}, 20) // so many at a time
	for i := range g.size {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			if err := do(i); err != nil {
				errs[i] = fmt.Errorf("client %d: %w", i, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
