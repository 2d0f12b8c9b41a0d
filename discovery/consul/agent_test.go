package consul

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-proxy/sluice/discovery"
)

// agent answers health queries like a Consul agent, as told by the test: the one
// thing a real Consul cannot be made to do is to go wrong on demand.
type agent struct {
	mu       sync.Mutex
	changed  chan struct{} // closed and replaced by each tell
	index    uint64
	services map[string]string // Consul's name → instances, as entries reads them
	status   int               // answered instead of entries when not 0
	hidden   map[string]bool   // names that the token may not see
	filtered bool              // X-Consul-Results-Filtered-By-ACLs
	hangs    bool              // answers nothing
	hasty    bool              // never waits
	asked    []string          // every query, as "chat index=3 wait=30000ms"
}

// tell changes what the agent answers and wakes the queries that wait.
func (a *agent) tell(change func(*agent)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(a)
	close(a.changed)
	a.changed = make(chan struct{})
}

// list gives chat these instances under the next index.
func (a *agent) list(instances string) {
	a.tell(func(a *agent) { a.services["chat"] = instances; a.index++ })
}

func (a *agent) queries() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	asked := a.asked
	a.asked = nil
	return asked
}

func (a *agent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	name := strings.TrimPrefix(r.URL.Path, "/v1/health/service/")
	index, _ := strconv.ParseUint(q.Get("index"), 10, 64)
	wait, _ := time.ParseDuration(q.Get("wait"))
	deadline := time.After(wait + wait/16)
	a.mu.Lock()
	var asked strings.Builder
	asked.WriteString(name)
	for _, key := range []string{"index", "wait"} {
		if q.Has(key) {
			asked.WriteString(" " + key + "=" + q.Get(key))
		}
	}
	if q.Has("consistent") {
		asked.WriteString(" consistent")
	}
	a.asked = append(a.asked, asked.String())
	for over := false; !over && (a.hangs || (index > 0 && index >= a.index && a.status == 0 && !a.hasty)); {
		changed := a.changed
		a.mu.Unlock()
		select {
		case <-changed:
		case <-deadline:
			over = !a.hangs
		case <-r.Context().Done():
			return
		}
		a.mu.Lock()
	}
	defer a.mu.Unlock()
	if a.status != 0 {
		http.Error(w, "rpc error making call: No cluster leader", a.status)
		return
	}
	w.Header().Set("X-Consul-Index", strconv.FormatUint(a.index, 10))
	w.Header().Set("X-Consul-LastContact", "0")
	w.Header().Set("X-Consul-KnownLeader", "true")
	if a.filtered || a.hidden[name] {
		w.Header().Set("X-Consul-Results-Filtered-By-ACLs", "true")
	}
	services := a.services[name]
	if a.hidden[name] {
		services = ""
	}
	_ = json.NewEncoder(w).Encode(entries(services))
}

// entries reads "b1 b2! g1": the first letter is the colour, ! is critical, ?
// has no colour.
func entries(instances string) []*api.ServiceEntry {
	all := []*api.ServiceEntry{}
	for id := range strings.FieldsSeq(instances) {
		e := &api.ServiceEntry{Node: &api.Node{Node: "n1", Address: "10.0.0.1"}}
		name := strings.TrimRight(id, "!?")
		port, _ := strconv.Atoi(name[1:])
		e.Service = &api.AgentService{ID: name, Port: 9000 + 10*port + int(name[0]%7), Tags: []string{map[byte]string{'b': "blue", 'g': "green"}[name[0]]}}
		if strings.HasSuffix(id, "?") {
			e.Service.Tags = nil
		}
		status := api.HealthPassing
		if strings.HasSuffix(id, "!") {
			status = api.HealthCritical
		}
		e.Checks = api.HealthChecks{{CheckID: "service:" + name, Status: status}}
		all = append(all, e)
	}
	return all
}

// in reads a fleet back into what entries understands.
func in(f discovery.Fleet) string {
	var all []string
	for _, i := range f.Instances {
		id := string(i.ID)
		if !i.Health.Serves() {
			id += "!"
		}
		all = append(all, id)
	}
	for _, l := range f.LeftOut {
		all = append(all, string(l.ID)+"?")
	}
	return strings.Join(all, " ")
}

// world is a Source that runs against an agent over in-memory connections.
type world struct {
	*agent
	source *Source
	mu     sync.Mutex
	emits  []discovery.Snapshot
}

// run starts both in the bubble; they end with the test.
func run(t *testing.T, a *agent, o Options) *world {
	t.Helper()
	pipes := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	server := &http.Server{Handler: a}
	if a.changed == nil {
		a.changed = make(chan struct{})
	}
	o.Address, o.dial = "consul.test:8500", pipes.dial
	source, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{agent: a, source: source}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { _ = server.Serve(pipes) })
	all.Go(func() {
		if err := source.Run(ctx, w.emit); err != context.Canceled {
			t.Errorf("Run ended with %v", err)
		}
	})
	t.Cleanup(func() {
		before := len(w.news())
		cancel()
		synctest.Wait()
		if after := w.news(); len(after) > before {
			t.Errorf("ending was emitted as news: %+v", after[before:])
		}
		_ = server.Close()
		all.Wait()
	})
	synctest.Wait()
	return w
}

func (w *world) emit(s discovery.Snapshot) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.emits = append(w.emits, s)
}

// news is everything emitted so far.
func (w *world) news() []discovery.Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.emits
}

// chat is the newest fleet of chat; it fails unless exactly n snapshots have been
// emitted so far.
func (w *world) chat(t *testing.T, n int) discovery.Fleet {
	t.Helper()
	synctest.Wait()
	news := w.news()
	if len(news) != n {
		t.Fatalf("%d snapshots, want %d: %+v", len(news), n, news)
	}
	return news[n-1]["chat"]
}

// pipes is a listener whose connections are in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }
