package xds_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// schedule is what happens in which order, as bytes: each choice takes one. It ends with them.
type schedule struct{ script []byte }

func (s *schedule) choose(n int) int {
	if n <= 1 || len(s.script) == 0 {
		return 0
	}
	b := s.script[0]
	s.script = s.script[1:]
	return int(b) % n
}

// shown is a world that changes at random: clusters that come, go and change, each with its endpoints,
// and listeners and routes that use them.
type shown struct {
	*crowded
	schedule  *schedule
	n         uint32 // content, another for each change
	clusters  map[string]uint32
	endpoints map[string]uint32
	listeners map[string]uint32
	routes    map[string]uint32
	ever      map[resource.Ref]bool // what this process of the server has published
}

// change is one publish, of some changes.
func (s *shown) change() {
	for range 1 + s.schedule.choose(4) {
		s.n++
		c := fmt.Sprint("c", s.schedule.choose(5))
		l := fmt.Sprint("l", s.schedule.choose(4))
		_, have := s.clusters[c]
		switch s.schedule.choose(8) {
		case 0, 1:
			s.clusters[c] = s.news(cds, c)
			if !have {
				s.endpoints[c] = s.news(eds, c)
			}
		case 2:
			s.endpoints[c] = s.news(eds, c)
			if !have {
				s.clusters[c] = s.news(cds, c)
			}
		case 3:
			delete(s.clusters, c)
			delete(s.endpoints, c)
			s.redirect()
		case 4:
			s.listeners[l] = s.news(lds, l, s.some()...)
			if s.routes[l] == 0 {
				s.routes[l] = s.news(rds, l, s.some()...)
			}
		case 5, 6:
			s.routes[l] = s.news(rds, l, s.some()...)
		case 7: // all at once
			for c := range s.endpoints {
				s.endpoints[c] = s.news(eds, c)
			}
		}
	}
	s.publish()
}

// news is the content of a changed resource, which some proxies may refuse.
func (s *shown) news(typeURL, name string, uses ...string) uint32 {
	what := of(typeURL, name, s.n)
	s.uses[what] = uses
	if s.schedule.choose(6) == 1 {
		s.bad[what] = s.schedule.choose(1 << len(s.proxies))
	}
	return s.n
}

// some is a choice of the clusters that there are.
func (s *shown) some() []string {
	var names []string
	for i := range 5 {
		if c := fmt.Sprint("c", i); s.clusters[c] > 0 && s.schedule.choose(3) == 0 {
			names = append(names, c)
		}
	}
	return names
}

// redirect has what used a cluster that is gone use others.
func (s *shown) redirect() {
	for typeURL, all := range map[string]map[string]uint32{lds: s.listeners, rds: s.routes} {
		for name, n := range all {
			if slices.ContainsFunc(s.uses[of(typeURL, name, n)], func(c string) bool { return s.clusters[c] == 0 }) {
				s.n++
				s.uses[of(typeURL, name, s.n)] = nil
				all[name] = s.n
			}
		}
	}
}

func (s *shown) publish() {
	// Some listener and some route use a cluster always.
	set := []resource.Resource{res(s.t, cds, "c", 1), res(s.t, eds, "c", 1), res(s.t, lds, "l", 1, ref(cds, "c")), res(s.t, rds, "l", 1, ref(cds, "c"))}
	for typeURL, all := range map[string]map[string]uint32{cds: s.clusters, eds: s.endpoints, lds: s.listeners, rds: s.routes} {
		for name, n := range all {
			r := res(s.t, typeURL, name, n)
			for _, c := range s.uses[of(typeURL, name, n)] {
				r.After = append(r.After, ref(cds, c))
			}
			s.ever[r.Ref] = true
			set = append(set, r)
		}
	}
	s.Publish(set)
}

// step does the next thing of the schedule.
func (s *shown) step() {
	e := s.proxies[s.schedule.choose(len(s.proxies))]
	types := []string{cds, eds, lds, rds}
	switch s.schedule.choose(24) {
	case 0, 1, 2, 3:
		s.change()
	case 4, 5, 6, 7, 8, 9:
		e.hear()
	case 10, 11, 12, 13, 14, 15:
		e.reply(types[s.schedule.choose(len(types))])
	case 16: // at once
		for e.hear() {
			for _, typeURL := range types {
				e.reply(typeURL)
			}
		}
	case 17:
		e.close()
		e.connect()
	case 18:
		e.close()
		e.restart()
		e.connect()
	case 19:
		time.Sleep(time.Duration(1+s.schedule.choose(40)) * time.Second / 4)
		for _, e := range s.proxies {
			clear(e.warming) // as Envoy does after initial_fetch_timeout
		}
	case 20: // once more what was said, or what is no answer to anything
		stale := append(e.given, &discovery.DeltaDiscoveryRequest{TypeUrl: cds, ResponseNonce: "none"})
		e.send(stale[s.schedule.choose(len(stale))])
	case 21:
		s.Retry()
	case 22: // asked again, which is answered
		for name := range e.asked[eds] {
			e.ask(eds, name)
			break
		}
	case 23:
		s.anew()
	}
}

// anew is another process of the server, to which all proxies connect.
func (s *shown) anew() {
	for _, e := range s.proxies {
		e.close()
	}
	s.grpc.Stop()
	s.world = start(s.t)
	clear(s.ever)
	s.publish()
	for _, e := range s.proxies {
		e.world = s.world
		e.connect()
	}
}

// end checks that every proxy has in the end what is published, once it refuses nothing.
func (s *shown) end() {
	clear(s.bad)
	for range 3 {
		s.settle()
		for _, e := range s.proxies {
			clear(e.warming)
		}
		s.Retry()
		time.Sleep(2 * time.Minute)
	}
	s.settle()
	for _, e := range s.proxies {
		e.believed(s.proxy(e.node))
		published := map[string]map[string]uint32{cds: s.clusters, eds: s.endpoints, lds: s.listeners, rds: s.routes}
		for typeURL, all := range published {
			for name, n := range all {
				have, ok := e.holds[typeURL][name]
				if !ok && (typeURL != rds || e.asked[rds][name]) || typeURL != lds && ok && have.n != n {
					s.t.Errorf("%s has %s in the end, and not %d: %q", e.node, of(typeURL, name, have.n), n, s.whys(e))
				}
			}
		}
		for name := range e.holds[cds] {
			if _, ok := s.clusters[name]; !ok && s.ever[ref(cds, name)] && e.user(name) == "" && !s.outdated(e) {
				s.t.Errorf("%s keeps cluster %s, which nothing uses: %q", e.node, name, s.whys(e))
			}
		}
		if p := s.proxy(e.node); len(p.Nacks) > 0 && !s.outdated(e) {
			s.t.Errorf("refusals stand: %+v", p.Nacks)
		}
	}
}

// outdated reports whether the proxy holds another version of a listener than is published, of
// which a new process of the server does not know what it uses.
func (s *shown) outdated(e *strict) bool {
	for name, have := range e.holds[lds] {
		if n, ok := s.listeners[name]; ok && n != have.n {
			return true
		}
	}
	return false
}

// whys says why something is withheld.
func (s *shown) whys(e *strict) (whys []string) {
	for _, w := range s.proxy(e.node).Withheld {
		whys = append(whys, w.Why)
	}
	return whys
}

// FuzzSchedules plays any order of publishes, answers, refusals, reconnects and restarts with two
// strict Envoys.
func FuzzSchedules(f *testing.F) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 17))
		script := make([]byte, 100+r.IntN(400))
		for i := range script {
			script[i] = byte(r.Uint32())
		}
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 2000 {
			return // long ones say no more
		}
		synctest.Test(t, func(t *testing.T) { play(t, script) })
	})
}

func play(t *testing.T, script []byte) {
	order := &schedule{script}
	s := &shown{
		crowded: &crowded{
			world: start(t), uses: map[string][]string{}, bad: map[string]int{}, proven: map[string]bool{}, choose: order.choose,
		},
		schedule: order, clusters: map[string]uint32{}, endpoints: map[string]uint32{}, listeners: map[string]uint32{}, routes: map[string]uint32{},
		ever: map[resource.Ref]bool{},
	}
	for i := range 2 {
		e := &strict{crowded: s.crowded, node: fmt.Sprint("edge-", i+1)}
		s.proxies = append(s.proxies, e)
		e.restart()
		e.connect()
	}
	s.publish()
	for len(order.script) > 0 && !t.Failed() {
		s.step()
		if order.choose(3) > 0 {
			synctest.Wait()
			for _, e := range s.proxies {
				for _, p := range s.Clients() {
					if p.Node == e.node {
						e.believed(p)
					}
				}
			}
		}
	}
	s.end()
	for _, e := range s.proxies {
		e.close()
	}
	s.grpc.Stop()
}
