package xds_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing/synctest"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpc "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"

	"github.com/sluice-proxy/sluice/xds"
)

// strict is an Envoy that forgives nothing. It speaks the delta protocol as Envoy does: it asks
// for the endpoints of each cluster and the routes of each listener that it is told of, keeps the
// acknowledgement of a cluster back while that warms, and of a refused response it applies a part.
// What must not be said to it fails the test at once:
//   - a listener or route that sends connections to a cluster which it has not acknowledged;
//   - the removal of a cluster that a listener or route of it uses;
//   - another version, or the removal, of a listener;
//   - a nonce that it has heard before;
//   - of what goes alone, bytes that no proxy has acknowledged, or that were in a refused response,
//     beside others.
//
// It acts when it is told to: what arrives waits in the inbox.
type strict struct {
	*crowded
	node string
	conn *grpc.ClientConn
	str  deltaStream
	stop context.CancelFunc
	done sync.WaitGroup

	mu    sync.Mutex
	inbox []*discovery.DeltaDiscoveryResponse

	holds   map[string]map[string]told // type → name
	asked   map[string]map[string]bool // what it has asked for by name, on this stream
	nonces  map[string]bool            // heard on this stream
	answers []answer                   // not given yet, in order
	given   []*discovery.DeltaDiscoveryRequest
	alone   map[string]bool // "type name" of what was in a refused response
	warming map[string]bool // clusters whose endpoints have not followed
}

// told is a resource as the proxy has it.
type told struct {
	version string
	n       uint32
	acked   bool
}

// answer is an answer and the clusters that must be warm before it is given.
type answer struct {
	*discovery.DeltaDiscoveryRequest
	warm []string
	good map[string]string // name → version
}

// crowded is what the proxies of one test have in common.
type crowded struct {
	*world
	uses    map[string][]string // "type name n" → the clusters that it sends connections to
	bad     map[string]int      // "type name n" → a bit for each proxy that refuses it
	proven  map[string]bool     // "type name version" that some proxy has acknowledged
	proxies []*strict
	choose  func(n int) int
}

func of(typeURL, name string, n any) string { return fmt.Sprint(kinds[typeURL], " ", name, " ", n) }

var apart = options().OnePerResponse

// connect opens a stream, on which the proxy asks for everything, with what it holds.
func (e *strict) connect() {
	e.conn = e.dial()
	ctx, stop := context.WithCancel(e.t.Context())
	str, err := aggregated(ctx, e.conn)
	if err != nil {
		e.t.Fatal(err)
	}
	e.str, e.stop = str, stop
	e.asked, e.nonces, e.alone = map[string]map[string]bool{}, map[string]bool{}, map[string]bool{}
	e.inbox, e.answers, e.given = nil, nil, nil
	e.done.Go(func() {
		for {
			m, err := str.Recv()
			if err != nil {
				return
			}
			e.mu.Lock()
			e.inbox = append(e.inbox, m)
			e.mu.Unlock()
		}
	})
	for _, typeURL := range []string{cds, eds, lds, rds} {
		claims := map[string]string{}
		for name, have := range e.holds[typeURL] {
			claims[name] = have.version
			have.acked = true // it says so now
			e.holds[typeURL][name] = have
			e.proven[of(typeURL, name, have.version)] = true
		}
		r := &discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: e.node}, TypeUrl: typeURL, InitialResourceVersions: claims}
		e.asked[typeURL] = map[string]bool{}
		switch typeURL {
		case eds:
			r.ResourceNamesSubscribe = slices.Sorted(maps.Keys(e.holds[cds]))
		case rds:
			r.ResourceNamesSubscribe = slices.Sorted(maps.Keys(e.holds[lds]))
		}
		for _, name := range r.ResourceNamesSubscribe {
			e.asked[typeURL][name] = true
		}
		if len(r.ResourceNamesSubscribe) > 0 || typeURL == cds || typeURL == lds {
			e.send(r)
		}
	}
}

func (e *strict) send(r *discovery.DeltaDiscoveryRequest) { _ = e.str.Send(r) } // the server may be gone

func (e *strict) close() {
	e.stop()
	_ = e.conn.Close()
	e.done.Wait()
}

// restart is that of the process: it holds nothing.
func (e *strict) restart() {
	e.holds = map[string]map[string]told{cds: {}, eds: {}, lds: {}, rds: {}}
	e.warming = map[string]bool{}
}

// ask subscribes to names on the open stream.
func (e *strict) ask(typeURL string, names ...string) {
	if len(names) == 0 {
		return
	}
	for _, name := range names {
		e.asked[typeURL][name] = true
	}
	e.send(&discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: e.node}, TypeUrl: typeURL, ResourceNamesSubscribe: names})
}

// hear takes the oldest response of the inbox; false if there is none.
func (e *strict) hear() bool {
	e.mu.Lock()
	if len(e.inbox) == 0 {
		e.mu.Unlock()
		return false
	}
	m := e.inbox[0]
	e.inbox = e.inbox[1:]
	e.mu.Unlock()

	e.check(m)
	a := answer{&discovery.DeltaDiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce}, nil, map[string]string{}}
	several := len(m.Resources)+len(m.RemovedResources) > 1
	var good []told
	var names []string
	for _, r := range m.Resources {
		_, n := content(e.t, m.TypeUrl, r.Resource.Value)
		delete(e.alone, of(m.TypeUrl, r.Name, ""))
		if m.TypeUrl == eds {
			delete(e.warming, r.Name) // a refusal ends the warming, too
		}
		if e.refuses(of(m.TypeUrl, r.Name, n)) {
			a.ErrorDetail = &rpc.Status{Code: 3, Message: of(m.TypeUrl, r.Name, n) + " is bad"}
			continue
		}
		good, names = append(good, told{version: r.Version, n: n}), append(names, r.Name)
		a.good[r.Name] = r.Version
	}
	removed := m.RemovedResources
	if a.ErrorDetail != nil {
		some := e.choose(len(good) + 1)
		good, names, removed, a.good = good[:some], names[:some], removed[:e.choose(len(removed)+1)], nil
		if several {
			for _, r := range m.Resources {
				e.alone[of(m.TypeUrl, r.Name, "")] = true
			}
		}
	}
	for i, name := range names {
		if e.apply(m.TypeUrl, name, good[i]) {
			a.warm = append(a.warm, name)
		}
	}
	for _, name := range removed {
		e.remove(m.TypeUrl, name)
	}
	e.answers = append(e.answers, a)
	return true
}

// refuses reports whether the proxy refuses a resource.
func (e *strict) refuses(what string) bool {
	return e.bad[what]&(1<<slices.Index(e.proxies, e)) != 0
}

// apply takes a resource over, and reports whether it is a cluster that warms.
func (e *strict) apply(typeURL, name string, r told) bool {
	if (typeURL == eds || typeURL == rds) && !e.asked[typeURL][name] {
		return false // asked for no more
	}
	old, have := e.holds[typeURL][name]
	r.acked = have && old.acked
	e.holds[typeURL][name] = r
	switch {
	case typeURL == cds && !e.asked[eds][name]:
		e.ask(eds, name)
		e.warming[name] = true
		return true
	case typeURL == cds && (!have || old.version != r.version):
		e.warming[name] = true
		return true
	case typeURL == lds && !e.asked[rds][name]:
		e.ask(rds, name)
	}
	return false
}

func (e *strict) remove(typeURL, name string) {
	switch typeURL {
	case rds:
		return // as Envoy does
	case cds:
		delete(e.warming, name)
		if e.asked[eds][name] {
			delete(e.asked[eds], name)
			e.send(&discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: e.node}, TypeUrl: eds, ResourceNamesUnsubscribe: []string{name}})
		}
		delete(e.holds[eds], name)
	}
	delete(e.holds[typeURL], name)
}

// reply gives the oldest answer that can be given of a type; false if there is none.
func (e *strict) reply(typeURL string) bool {
	at := slices.IndexFunc(e.answers, func(a answer) bool { return a.TypeUrl == typeURL })
	if at < 0 {
		return false
	}
	a := e.answers[at]
	if slices.ContainsFunc(a.warm, func(name string) bool { return e.warming[name] }) {
		return false
	}
	e.answers = slices.Delete(e.answers, at, at+1)
	for name, version := range a.good {
		e.proven[of(typeURL, name, version)] = true
		if have, ok := e.holds[typeURL][name]; ok && have.version == version {
			have.acked = true
			e.holds[typeURL][name] = have
		}
	}
	e.given = append(e.given, a.DeltaDiscoveryRequest)
	e.send(a.DeltaDiscoveryRequest)
	return true
}

// check fails the test when m must not be said to the proxy now.
func (e *strict) check(m *discovery.DeltaDiscoveryResponse) {
	fail := func(format string, args ...any) {
		e.t.Helper()
		e.t.Errorf("%s %s: %s", e.node, e.line(m), fmt.Sprintf(format, args...))
	}
	if m.Nonce == "" || e.nonces[m.Nonce] {
		fail("the nonce %q is not new", m.Nonce)
	}
	e.nonces[m.Nonce] = true
	if e.asked[m.TypeUrl] == nil {
		fail("nobody asked for the type")
	}
	several := len(m.Resources)+len(m.RemovedResources) > 1
	seen := map[string]bool{}
	for _, r := range m.Resources {
		_, n := content(e.t, m.TypeUrl, r.Resource.Value)
		if seen[r.Name] {
			fail("%s comes twice", r.Name)
		}
		seen[r.Name] = true
		for _, c := range e.uses[of(m.TypeUrl, r.Name, n)] {
			if !e.holds[cds][c].acked {
				fail("%s needs cluster %s, which is not acknowledged", r.Name, c)
			}
		}
		if have, ok := e.holds[lds][r.Name]; m.TypeUrl == lds && ok && have.version != r.Version {
			fail("listener %s is written twice", r.Name)
		}
		if several && slices.Contains(apart, m.TypeUrl) && !e.proven[of(m.TypeUrl, r.Name, r.Version)] {
			fail("%s is new to everybody and comes beside others", r.Name)
		}
		if several && e.alone[of(m.TypeUrl, r.Name, "")] {
			fail("%s was in a refused response and comes beside others", r.Name)
		}
	}
	for _, name := range m.RemovedResources {
		if m.TypeUrl == lds {
			fail("listener %s is taken away", name)
		}
		if user := e.user(name); m.TypeUrl == cds && user != "" {
			fail("cluster %s is removed, and %s uses it", name, user)
		}
	}
}

// user names what sends connections to a cluster, or is empty.
func (e *strict) user(name string) string {
	for _, typeURL := range []string{lds, rds} {
		for user, r := range e.holds[typeURL] {
			if what := of(typeURL, user, r.n); slices.Contains(e.uses[what], name) {
				return what
			}
		}
	}
	return ""
}

// believed fails the test when the server says of the proxy what is not so. Everything that was
// sent has arrived.
func (e *strict) believed(p xds.Client) {
	for ref, v := range p.Acknowledged {
		if have, ok := e.holds[ref.Type][ref.Name]; !ok || have.version != v {
			e.t.Errorf("%s counts as holding %s in version %s, and has %q", e.node, ref, v, have.version)
		}
	}
}

func (e *strict) line(m *discovery.DeltaDiscoveryResponse) string {
	var b strings.Builder
	b.WriteString(kinds[m.TypeUrl])
	for _, r := range m.Resources {
		_, n := content(e.t, m.TypeUrl, r.Resource.Value)
		fmt.Fprintf(&b, " +%s:%d", r.Name, n)
	}
	for _, name := range m.RemovedResources {
		b.WriteString(" -" + name)
	}
	return b.String()
}

// settle has every proxy hear and answer until nothing more comes.
func (c *crowded) settle() {
	for range 10_000 {
		synctest.Wait()
		busy := false
		for _, e := range c.proxies {
			for e.hear() {
				busy = true
			}
			for _, typeURL := range []string{eds, cds, lds, rds} {
				for e.reply(typeURL) {
					busy = true
				}
			}
		}
		if !busy {
			return
		}
	}
	c.t.Error("the server does not stop talking")
}
