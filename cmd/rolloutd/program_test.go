package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// program is rolloutd in this process, driven as its user would: a configuration
// in a folder, signals, its log, its API. Instances are real gates on loopback.
type program struct {
	t        *testing.T
	dir      string
	xds, web netip.AddrPort // web is the listener's, which nobody binds
	base     string         // of the API
	api      *api.Client
	hup      chan os.Signal
	said     *saying
	stop     func() int

	mu     sync.Mutex
	gates  []*guarded
	closed int
}

// guarded is one instance.
type guarded struct {
	*drain.Gate
	id     string
	colour discovery.Colour
	server *httptest.Server
}

// saying is what the program wrote; it may be read at any time.
type saying struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *saying) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *saying) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// newProgram writes a configuration of the service chat with one instance of
// each colour, blue holding connections, and starts nothing.
func newProgram(t *testing.T, connections int) *program {
	t.Helper()
	p := &program{t: t, dir: t.TempDir(), web: freePort(t), said: &saying{}}
	for _, c := range discovery.Colours {
		g := &guarded{Gate: drain.New(drain.Options{CountsReturns: true, CountsTickets: true}), id: "chat-" + string(c), colour: c}
		g.server = httptest.NewServer(g.Endpoint())
		t.Cleanup(g.server.Close)
		p.gates = append(p.gates, g)
	}
	for range connections {
		p.arrive(p.gates[0], false)
	}
	p.write("instances.yaml", p.instances("chat"))
	p.xds = freePort(t)
	listen := freePort(t)
	p.base = "http://" + listen.String()
	p.configure(p.chat(3))
	var err error
	if p.api, err = api.NewClient(p.base, ""); err != nil {
		t.Fatal(err)
	}
	return p
}

func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	addr, err := fleet.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// instances is the discovery file: the same two for each service.
func (p *program) instances(services ...string) string {
	var b strings.Builder
	b.WriteString("services:\n")
	for _, s := range services {
		fmt.Fprintf(&b, "  %s:\n", s)
		for i, g := range p.gates {
			fmt.Fprintf(&b, "    - {id: %s, colour: %s, address: 127.0.0.1:%d, drain: %q}\n", g.id, g.colour, 2000+i, g.server.URL)
		}
	}
	return b.String()
}

func (p *program) chat(funnel int) string {
	return fmt.Sprintf("  - {name: chat, domains: [chat.example.com], policy: {funnel: %d/100ms}}\n", funnel)
}

// configure writes the configuration with these services.
func (p *program) configure(services string) {
	p.write("sluice.yaml", fmt.Sprintf("discovery: {file: instances.yaml}\nstate: {file: state}\nxds: {listen: %s}\napi: {listen: %s}\nlisteners:\n  - {name: web, address: %s}\nservices:\n%s",
		p.xds, strings.TrimPrefix(p.base, "http://"), p.web, services))
}

func (p *program) write(name, text string) {
	p.t.Helper()
	// In one move, as a careful operator does.
	if err := os.WriteFile(filepath.Join(p.dir, name+".new"), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(p.dir, name+".new"), filepath.Join(p.dir, name)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *program) read(name string) string {
	p.t.Helper()
	data, err := os.ReadFile(filepath.Join(p.dir, name))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(data)
}

// edit replaces text in the configuration.
func (p *program) edit(old, with string) {
	p.t.Helper()
	text := p.read("sluice.yaml")
	if !strings.Contains(text, old) {
		p.t.Fatalf("the configuration has no %q:\n%s", old, text)
	}
	p.write("sluice.yaml", strings.Replace(text, old, with, 1))
}

// arrive connects a client to a gate; evicted, it comes back to the other one.
func (p *program) arrive(g *guarded, returning bool) {
	var conn *drain.Conn
	conn, err := g.Admit(func() {
		conn.Done()
		p.mu.Lock()
		p.closed++
		p.mu.Unlock()
		for _, other := range p.gates {
			if other != g {
				p.arrive(other, true)
			}
		}
	})
	if err != nil {
		p.t.Errorf("%s refuses a client: %v", g.id, err)
	} else if returning {
		conn.Returned()
		conn.Ticketed()
	}
}

// closes is how many connections were closed.
func (p *program) closes() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// launch starts it and waits until it is ready.
func (p *program) launch() {
	p.t.Helper()
	p.begin()
	p.until("ready", func() bool {
		code, _ := p.get("/readyz", "")
		return code == http.StatusOK
	})
}

func (p *program) begin() {
	ctx, cancel := context.WithCancel(p.t.Context())
	p.hup = make(chan os.Signal, 1)
	ended, hup := make(chan int, 1), p.hup
	go func() { ended <- run(ctx, []string{"-config", filepath.Join(p.dir, "sluice.yaml")}, hup, p.said) }()
	p.stop = sync.OnceValue(func() int {
		cancel()
		return <-ended
	})
	stop := p.stop
	p.t.Cleanup(func() {
		if code := stop(); code != 0 {
			p.t.Errorf("rolloutd ended with %d:\n%s", code, p.said)
		}
		if p.t.Failed() {
			p.t.Logf("rolloutd said:\n%s", p.said)
		}
	})
}

// fails runs it and wants it to end by itself with 1 and one sentence that holds
// all of want.
func (p *program) fails(want ...string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	said := &saying{}
	if code := run(ctx, []string{"-config", filepath.Join(p.dir, "sluice.yaml")}, nil, said); code != 1 || ctx.Err() != nil {
		p.t.Errorf("ended with %d, want 1 by itself:\n%s", code, said)
	}
	for _, w := range want {
		if !strings.Contains(said.String(), w) {
			p.t.Errorf("it does not say %q:\n%s", w, said)
		}
	}
}

// reload has it reread its configuration and waits until it said what it made
// of that.
func (p *program) reload(answer string) {
	p.t.Helper()
	before := strings.Count(p.said.String(), answer)
	p.hup <- syscall.SIGHUP
	p.until(answer, func() bool { return strings.Count(p.said.String(), answer) > before })
}

func (p *program) get(path, token string) (int, string) {
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.base+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(body)
}

// until polls until done holds.
func (p *program) until(what string, done func() bool) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	for !done() {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			p.t.Fatalf("never: %s\n%s", what, p.said)
		}
	}
}

func (p *program) status(s discovery.Service) api.Status {
	p.t.Helper()
	st, err := p.api.Service(p.t.Context(), s)
	if err != nil {
		p.t.Fatal(err)
	}
	return st
}
