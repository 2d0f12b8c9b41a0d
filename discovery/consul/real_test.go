//go:build real

package consul_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/discovery/consul"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// hold is short here: real time passes.
const hold = 300 * time.Millisecond

// TestRealConsul drives one agent through what a fleet does to it in its life.
func TestRealConsul(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	agent, err := fleet.StartConsul(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { agent.Kill() })
	client, err := api.NewClient(&api.Config{Address: agent.HTTP.String()})
	if err != nil {
		t.Fatal(err)
	}
	r := registry{t: t, Agent: client.Agent()}
	w := watch(t, ctx, agent.HTTP.String())
	w.await("an empty catalogue", func(f discovery.Fleet) bool { return f.Instances != nil && f.Suspect == "" })

	all := []string{"b1", "b2", "b3", "g1", "g2", "g3"}
	for i, id := range all {
		r.register(id, i)
	}
	f := w.await("six registered", func(f discovery.Fleet) bool { return serving(f) == 6 })
	if i := f.Instances[0]; i.ID != "b1" || i.Colour != discovery.Blue || i.Addr.String() != "127.0.0.1:9000" ||
		i.Drain != "http://127.0.0.1:9100" || i.Capacity != 5000 || i.Version != "v1" || i.Health != discovery.Passing {
		t.Fatalf("%+v", i)
	}

	r.do(r.UpdateTTL("ttl:b1", "ill", api.HealthCritical))
	w.await("b1 critical", func(f discovery.Fleet) bool { return health(f, "b1") == discovery.Critical })
	r.do(r.UpdateTTL("ttl:b1", "hm", api.HealthWarning))
	w.await("b1 warning", func(f discovery.Fleet) bool { return health(f, "b1") == discovery.Warning })
	r.do(r.EnableServiceMaintenance("b1", "upgrade"))
	w.await("b1 in maintenance", func(f discovery.Fleet) bool { return health(f, "b1") == discovery.Maintenance })
	r.do(r.DisableServiceMaintenance("b1"))
	w.await("b1 out of maintenance", func(f discovery.Fleet) bool { return health(f, "b1") == discovery.Warning })
	r.do(r.EnableNodeMaintenance("reboot"))
	w.await("the node in maintenance", func(f discovery.Fleet) bool { return serving(f) == 0 && len(f.Instances) == 6 })
	r.do(r.DisableNodeMaintenance())
	w.await("the node out of maintenance", func(f discovery.Fleet) bool { return serving(f) == 6 })

	r.register("b1", 0, "v1") // its colour is lost
	w.await("b1 left out", func(f discovery.Fleet) bool {
		return len(f.Instances) == 5 && len(f.LeftOut) == 1 && f.LeftOut[0].ID == "b1"
	})
	r.register("b1", 0, "green")
	w.await("b1 turned green", func(f discovery.Fleet) bool {
		return len(f.LeftOut) == 0 && f.Instances[0].Colour == discovery.Green
	})

	r.do(r.ServiceDeregister("b1"))
	w.await("b1 gone", func(f discovery.Fleet) bool { return len(f.Instances) == 5 && f.Suspect == "" })

	// A node with more than half of the instances is taken out of the catalogue in one go.
	for i := range 6 {
		_, err := client.Catalog().Register(&api.CatalogRegistration{Node: "other", Address: "127.0.0.2", Service: &api.AgentService{
			ID: fmt.Sprint("o", i), Service: "chat", Tags: []string{"green"}, Port: 9000 + i,
		}}, nil)
		r.do(err)
	}
	w.await("six more on another node", func(f discovery.Fleet) bool {
		return serving(f) == 11 && f.Instances[10].Addr.String() == "127.0.0.2:9005"
	})
	begin := time.Now()
	_, err = client.Catalog().Deregister(&api.CatalogDeregistration{Node: "other"}, nil)
	r.do(err)
	w.await("the lost node's six held", func(f discovery.Fleet) bool { return serving(f) == 11 && f.Suspect != "" })
	w.await("the lost node's six gone, confirmed", func(f discovery.Fleet) bool { return len(f.Instances) == 5 && f.Suspect == "" })
	if took := time.Since(begin); took < hold {
		t.Fatalf("believed after %s, before %s were over", took, hold)
	}

	for _, id := range all[1:] {
		r.do(r.ServiceDeregister(id))
	}
	w.await("the last known held", func(f discovery.Fleet) bool {
		return len(f.Instances) > 0 && strings.HasPrefix(f.Suspect, "Consul lists no instance of chat;")
	})
}

// TestRealConsulLosesEverything: killed and started again with an empty catalogue.
func TestRealConsulLosesEverything(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	agent, err := fleet.StartConsul(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { agent.Kill() })
	client, err := api.NewClient(&api.Config{Address: agent.HTTP.String()})
	if err != nil {
		t.Fatal(err)
	}
	r := registry{t: t, Agent: client.Agent()}
	for i, id := range []string{"b1", "b2", "g1"} {
		r.register(id, i)
	}
	w := watch(t, ctx, agent.HTTP.String())
	w.await("three registered", func(f discovery.Fleet) bool { return serving(f) == 3 })

	agent.Kill()
	w.await("the last good answer", func(f discovery.Fleet) bool { return serving(f) == 3 && f.Err != "" })
	if agent, err = fleet.StartConsulAt(ctx, agent.HTTP, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	f := w.await("the empty catalogue held", func(f discovery.Fleet) bool { return serving(f) == 3 && f.Err == "" && f.Suspect != "" })
	if want := "Consul lists no instance of chat; the 3 last known are kept until it lists some again"; f.Suspect != want {
		t.Fatalf("suspect: %s", f.Suspect)
	}
	for i, id := range []string{"b1", "b2", "g1"} {
		r.register(id, i)
	}
	w.await("all three back", func(f discovery.Fleet) bool { return serving(f) == 3 && f.Err == "" && f.Suspect == "" })
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fewest < 3 {
		t.Fatalf("in between only %d were shown", w.fewest)
	}
}

// registry registers instances of chat as their owner would.
type registry struct {
	t *testing.T
	*api.Agent
}

func (r registry) do(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// register registers the i-th instance with a passing TTL check; without tags it
// gets the colour that its id begins with.
func (r registry) register(id string, i int, tags ...string) {
	r.t.Helper()
	if tags == nil {
		tags = []string{map[byte]string{'b': "blue", 'g': "green"}[id[0]]}
	}
	r.do(r.ServiceRegister(&api.AgentServiceRegistration{
		ID: id, Name: "chat", Tags: tags, Address: "127.0.0.1", Port: 9000 + i,
		Meta:  map[string]string{"drain": fmt.Sprint(9100 + i), "capacity": "5000", "version": "v1"},
		Check: &api.AgentServiceCheck{CheckID: "ttl:" + id, TTL: "10m", Status: api.HealthPassing},
	}))
}

// watcher keeps what a Source emits.
type watcher struct {
	t       *testing.T
	ctx     context.Context
	mu      sync.Mutex
	newest  discovery.Fleet
	fewest  int           // instances in any snapshot
	changed chan struct{} // closed and replaced at each snapshot
}

func watch(t *testing.T, ctx context.Context, address string) *watcher {
	t.Helper()
	source, err := consul.New(consul.Options{Address: address, Services: map[discovery.Service]string{"chat": ""}, Hold: hold})
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{t: t, ctx: ctx, fewest: 1 << 20, changed: make(chan struct{})}
	running, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	all.Go(func() { _ = source.Run(running, w.emit) })
	t.Cleanup(func() { stop(); all.Wait() })
	return w
}

func (w *watcher) emit(s discovery.Snapshot) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.newest = s["chat"]
	w.fewest = min(w.fewest, len(w.newest.Instances))
	close(w.changed)
	w.changed = make(chan struct{})
}

// await returns the first snapshot, from the newest on, that is as it should be.
func (w *watcher) await(what string, right func(discovery.Fleet) bool) discovery.Fleet {
	w.t.Helper()
	begin := time.Now()
	for {
		w.mu.Lock()
		newest, changed := w.newest, w.changed
		w.mu.Unlock()
		if right(newest) {
			w.t.Logf("%s after %s", what, time.Since(begin).Round(100*time.Microsecond))
			return newest
		}
		select {
		case <-changed:
		case <-w.ctx.Done():
			w.t.Fatalf("%s did not come; the newest is %+v", what, newest)
		}
	}
}

func health(f discovery.Fleet, id discovery.InstanceID) discovery.Health {
	for _, i := range f.Instances {
		if i.ID == id {
			return i.Health
		}
	}
	return ""
}

func serving(f discovery.Fleet) int {
	n := 0
	for _, i := range f.Instances {
		if i.Health.Serves() {
			n++
		}
	}
	return n
}
