package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// rig is a Controller among real drain gates, reached over pipes, in fake time.
// It holds throughout that a state is stored before its effect shows. Use it in
// a synctest bubble.
type rig struct {
	t       *testing.T
	control *Controller
	stop    func() error // ends Run and returns its error
	shelf   *shelf
	log     *strings.Builder

	mu      sync.Mutex
	houses  map[string]*house // by address
	fleet   discovery.Fleet
	deaf    bool   // the proxy does not acknowledge
	refuse  string // why nothing is published
	loads   map[observed.Place]observed.Load
	wishes  desired.Wishes
	publish int
	closes  []time.Time
}

// house is one instance: a gate, its endpoint and its connections.
type house struct {
	*drain.Gate
	id      discovery.InstanceID
	server  *http.Server
	door    chan net.Conn
	hanging bool // never answers
	asked   int  // requests that came
	steps   []string
}

// newRig has blue and green instances, blue holding connections.
func newRig(t *testing.T, blue, green, connections int) *rig {
	r := &rig{t: t, shelf: &shelf{data: map[discovery.Service]state.Stored{}}, houses: map[string]*house{}, log: &strings.Builder{}}
	for i := range blue {
		r.build(discovery.Blue, i)
	}
	for i := range green {
		r.build(discovery.Green, i)
	}
	t.Cleanup(r.end)
	for i := range connections {
		r.arrive(fmt.Sprintf("b%d", i%blue+1), false)
	}
	return r
}

func (r *rig) build(c discovery.Colour, i int) *house {
	host := byte(1)
	if c == discovery.Green {
		host = 2
	}
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, host, 0, byte(i)}), 9000)
	h := &house{
		Gate: drain.New(drain.Options{Token: "t", CountsReturns: true, CountsTickets: true}), door: make(chan net.Conn),
		id: discovery.InstanceID(fmt.Sprintf("%s%d", c[:1], i+1)),
	}
	h.server = &http.Server{Handler: r.watchOrders(h)}
	r.mu.Lock()
	r.houses[addr.String()] = h
	r.mu.Unlock()
	r.fleet.Instances = append(slices.Clone(r.fleet.Instances), discovery.Instance{
		ID: h.id, Colour: c, Addr: addr, Health: discovery.Passing, Drain: "http://" + addr.String(),
	})
	slices.SortFunc(r.fleet.Instances, func(a, b discovery.Instance) int { return strings.Compare(string(a.ID), string(b.ID)) })
	go func() { _ = h.server.Serve(h) }()
	return h
}

// Accept, Close and Addr make a house a net.Listener of pipes.
func (h *house) Accept() (net.Conn, error) {
	if c, ok := <-h.door; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (h *house) Close() error   { close(h.door); return nil }
func (h *house) Addr() net.Addr { return &net.TCPAddr{} }

// watchOrders holds that no instance hears of what is not stored.
func (r *rig) watchOrders(h *house) http.Handler {
	endpoint := h.Endpoint()
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		hanging := h.hanging
		h.asked++
		r.mu.Unlock()
		if hanging {
			_, _ = io.Copy(io.Discard, q.Body) // it hears, and says nothing
			<-q.Context().Done()
			return
		}
		endpoint.ServeHTTP(w, q)
		if q.Method != http.MethodPut {
			return
		}
		status, stored := h.Status(), r.shelf.state(r.t, "chat")
		r.mu.Lock()
		defer r.mu.Unlock()
		h.steps = append(h.steps, fmt.Sprintf("%d.%d", status.Epoch, status.Step))
		if x := stored.Rollout; stored.Epoch < status.Epoch || x == nil || stored.Epoch == status.Epoch && x.Step < status.Step {
			r.t.Errorf("%s was told epoch %d step %d, but what is stored is %+v", h.id, status.Epoch, status.Step, stored)
		}
	})
}

func (r *rig) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	r.mu.Lock()
	h := r.houses[addr]
	r.mu.Unlock()
	if h == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr)), Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	near, far := net.Pipe()
	select {
	case h.door <- far:
		return near, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// run starts a Controller; restart does so again over the same store and fleet.
func (r *rig) run() {
	client := contract.NewClient("t")
	client.Dial = r.dial
	r.control = New(Ports{
		Store: r.shelf, Drain: client, Publish: r.hear, Proxies: r.proxies, Loads: r.reported,
		Logger: slog.New(slog.NewTextHandler(r.log, nil)),
	})
	control := r.control
	ctx, cancel := context.WithCancel(r.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- control.Run(ctx) }()
	r.stop = sync.OnceValue(func() error {
		cancel()
		err := <-ended
		client.Close()
		return err
	})
}

// start runs it with the service chat, configured and discovered.
func (r *rig) start() {
	r.run()
	r.configure("chat")
	r.discover()
	time.Sleep(3 * time.Second)
}

func (r *rig) configure(names ...discovery.Service) {
	services := map[discovery.Service]Service{}
	for _, name := range names {
		terms := policy.Default()
		terms.Funnel = units.Funnel{Close: 10, Every: units.Duration(3 * time.Second)}
		services[name] = Service{Live: discovery.Blue, Policy: terms}
	}
	r.control.Configure(services)
}

func (r *rig) discover() { r.control.Discovered(discovery.Snapshot{"chat": r.fleet}) }

// end stops everything: the bubble ends only if no goroutine is left.
func (r *rig) end() {
	if r.stop == nil {
		return
	}
	if err := r.stop(); err != nil {
		r.t.Errorf("Run: %v", err)
	}
	for _, h := range r.byName() {
		_ = h.server.Close()
	}
	synctest.Wait()
}

// hear is Publish: it holds that no proxy hears of what is not stored.
func (r *rig) hear(wishes desired.Wishes) map[discovery.Service]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.publish++
	if r.refuse != "" {
		return map[discovery.Service]string{"chat": r.refuse}
	}
	r.wishes = wishes
	for name, wish := range wishes {
		if wish.Unsettled != "" {
			if len(wish.Endpoints)+len(wish.Weights)+len(wish.Orders) > 0 {
				r.t.Errorf("%s is published, and its live colour is not proven: %+v", name, wish)
			}
			continue
		}
		if !r.shelf.stored(r.t, name, func(s state.State) bool { return reflect.DeepEqual(s.Weights(), wish.Weights) }) {
			r.t.Errorf("published %v of %s, which was never stored", wish.Weights, name)
		}
	}
	return nil
}

func (r *rig) proxies(discovery.Service) []observed.Proxy {
	r.mu.Lock()
	defer r.mu.Unlock()
	return []observed.Proxy{{Node: "edge-1", Routes: true, Connected: true, Confirmed: !r.deaf && r.refuse == ""}}
}

func (r *rig) reported(discovery.Service) (map[observed.Place]observed.Load, map[discovery.Colour]observed.Witness) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.loads, nil
}

// arrive connects a client to the named house. Evicted, it comes back to a house
// that takes it.
func (r *rig) arrive(name string, returning bool) {
	var conn *drain.Conn
	h := r.house(name)
	conn, err := h.Admit(func() {
		conn.Done()
		r.mu.Lock()
		r.closes = append(r.closes, time.Now())
		r.mu.Unlock()
		time.AfterFunc(300*time.Millisecond, func() {
			for _, in := range r.byName() {
				if in.Status().State == contract.Serving && in.id[0] != h.id[0] {
					r.arrive(string(in.id), true)
					return
				}
			}
			r.t.Errorf("a client of %s finds nobody who takes it", h.id)
		})
	})
	if err != nil {
		r.t.Errorf("%s refuses a client: %v", name, err)
		return
	}
	if returning {
		conn.Returned()
		conn.Ticketed()
	}
}

func (r *rig) byName() []*house {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Values(r.houses), func(a, b *house) int { return strings.Compare(string(a.id), string(b.id)) })
}

func (r *rig) house(name string) *house {
	for _, h := range r.byName() {
		if string(h.id) == name {
			return h
		}
	}
	r.t.Fatalf("no instance is called %s", name)
	return nil
}

// kill ends an instance's process: nobody answers at its address.
func (r *rig) kill(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for addr, h := range r.houses {
		if string(h.id) == name {
			delete(r.houses, addr)
			_ = h.server.Close()
		}
	}
}

func (r *rig) set(change func()) {
	r.mu.Lock()
	change()
	r.mu.Unlock()
	r.control.Notice()
}

// published is how often something was, and what last.
func (r *rig) published() (int, desired.Wishes) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.publish, r.wishes
}

func (r *rig) told() int { n, _ := r.published(); return n }

func (r *rig) closed() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.closes)
}

func (r *rig) view() rollout.View {
	views, _ := r.control.Views()
	return views["chat"]
}

// until lets fake time pass until the view is as wanted.
func (r *rig) until(what string, done func(rollout.View) bool) rollout.View {
	r.t.Helper()
	for end := time.Now().Add(5 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if v := r.view(); done(v) {
			return v
		}
		if time.Now().After(end) {
			r.t.Fatalf("never %s: %s: %s\n%s", what, r.view().State.Phase(), r.view().Reason.Text, r.log)
		}
	}
}

func (r *rig) untilPhase(p state.Phase) rollout.View {
	r.t.Helper()
	return r.until(string(p), func(v rollout.View) bool { return v.State.Phase() == p && v.State.Epoch > 0 })
}

func (r *rig) untilCode(c rollout.Code) rollout.View {
	r.t.Helper()
	return r.until(string(c), func(v rollout.View) bool { return v.Reason.Code == c })
}

func (r *rig) do(c rollout.Command) rollout.Answer {
	r.t.Helper()
	a, err := r.control.Do(r.t.Context(), c)
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

// refused does c and wants it refused with the code.
func (r *rig) refused(c rollout.Command, code rollout.Code) string {
	r.t.Helper()
	_, err := r.control.Do(r.t.Context(), c)
	if no, ok := errors.AsType[*rollout.Refusal](err); !ok || no.Code != code {
		r.t.Fatalf("%T: %v, want it refused as %s", c, err, code)
	}
	return err.Error()
}
