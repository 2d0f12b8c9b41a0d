package sim

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/observed"
)

// Edge is the proxies, what they are told, and what they see.
type Edge struct {
	*ground
	fleet *Fleet

	proxies   []*Proxy      // sorted by name
	serving   []*Proxy      // those that clients come through
	routes    routes        // what the proxies are told
	alone     time.Duration // since when no proxy is connected; negative while one is
	turned    time.Time     // when its weights changed last
	guard     string        // why they are not told it
	turn      int           // round robin
	reported  bool          // loads, in an exact world, too
	lying     bool          // the proxies' counters say 0, as after a hot restart, whatever the loads say
	omitting  bool          // their load reports leave everything out, whatever the counters say
	kept      bool          // what the proxies hold is from before rolloutd lost its state
	loads     map[observed.Place]observed.Load
	witnesses map[discovery.Colour]observed.Witness
}

// Proxy is the proxy of that name; one that nobody knew connects now.
func (e *Edge) Proxy(node string) *Proxy {
	i, known := slices.BinarySearchFunc(e.proxies, node, func(p *Proxy, node string) int { return strings.Compare(p.node, node) })
	if !known {
		e.add(i, node, 10*time.Millisecond)
		e.ring()
	}
	return e.proxies[i]
}

// add connects a proxy, the i-th by name.
func (e *Edge) add(i int, node string, delay time.Duration) {
	e.proxies = slices.Insert(e.proxies, i, &Proxy{edge: e, node: node, delay: delay, addr: netip.AddrFrom4([4]byte{10, 9, byte(len(e.proxies) >> 8), byte(len(e.proxies) + 1)})})
	e.watch()
}

// publish has the proxies hear what is wished, each after its delay. Of an unsettled
// service they hear nothing.
func (e *Edge) publish(wish desired.Wish) {
	if wish.Unsettled != "" {
		return
	}
	e.kept = false
	next := routes{
		version:   e.routes.version + 1,
		weights:   [2]int{int(wish.Weights[discovery.Blue]), int(wish.Weights[discovery.Green])},
		endpoints: make([]endpoint, 2*len(e.fleet.instances)),
	}
	for _, c := range discovery.Colours {
		for _, at := range wish.Endpoints[c] {
			next.endpoints[place(e.fleet.byAddr[at.Addr], side(c))] = open
			if at.Draining {
				next.endpoints[place(e.fleet.byAddr[at.Addr], side(c))] = draining
			}
		}
	}
	if !next.same(&e.routes) {
		if next.weights != e.routes.weights {
			e.turned = e.Now()
		}
		e.routes = next
		for _, p := range e.proxies {
			if p.heard.version > 0 && next.same(&p.heard) {
				p.heard.version = next.version // it has it already
			}
		}
	}
	for _, p := range e.proxies {
		if e.guard != "" || p.gone || p.told == e.routes.version || p.heard.version == e.routes.version {
			continue
		}
		p.told = e.routes.version
		told := e.routes
		e.after(p.delay, func() {
			if p.told == told.version && p.nack == "" && !p.gone && !p.alien {
				p.heard = told
				e.ring()
				e.watch()
			}
		})
	}
}

// watch keeps which proxies clients come through, those that are connected if there
// are any, and how many send each instance new connections, though they can have been
// told not to.
func (e *Edge) watch() {
	envoys := slices.DeleteFunc(slices.Clone(e.proxies), func(p *Proxy) bool { return p.alien })
	e.serving = slices.DeleteFunc(slices.Clone(envoys), func(p *Proxy) bool { return p.gone && !p.cut })
	if len(e.serving) == 0 {
		e.serving = envoys
	}
	for _, in := range e.fleet.instances {
		in.openAt = 0
		for _, p := range e.proxies {
			if !p.gone && !p.back && p.heard.sends(in) {
				in.openAt++
			}
		}
	}
	if !slices.ContainsFunc(envoys, func(p *Proxy) bool { return !p.gone }) {
		if e.alone < 0 {
			e.alone = e.now
		}
	} else {
		e.alone = -1
	}
}

// through brings a client from a machine to the next instance of a colour that the routes
// lead to, to any where there are none, or nowhere: it is refused. In an exact world the
// proxy tries one after another.
func (e *Edge) through(r *routes, c int, from string) *Instance {
	all := e.fleet.colours[c]
	if r != nil && len(e.fleet.liars) > 0 {
		all = slices.Concat(all, e.fleet.liars)
	}
	for range all {
		e.turn++
		in := all[e.turn%len(all)]
		if r != nil && !r.opens(in, c) {
			continue
		}
		if in.admits(from) {
			return in
		}
		if !e.conf.Exact {
			break
		}
	}
	return nil
}

// connect brings one client to an instance through some proxy, or nowhere: it is
// refused.
func (e *Edge) connect() *Instance {
	r, from := e.route()
	c := 0
	switch {
	case r.weights[0] == 0:
		c = 1
	case r.weights[1] > 0 && e.rng.IntN(r.weights[0]+r.weights[1]) >= r.weights[0]:
		c = 1
	}
	return e.through(r, c, from)
}

// route is what the next client's proxy has heard, and its machine.
func (e *Edge) route() (*routes, string) {
	if len(e.serving) == 0 {
		return &e.routes, direct
	}
	p := e.serving[e.rng.IntN(len(e.serving))]
	return &p.heard, p.addr.String()
}

// reporting is how often the proxies of a large world report their loads.
const reporting = time.Second

// report has the proxies say what they see of each instance.
func (e *Edge) report() {
	now := e.Now()
	var refused [2]uint64
	var held [2]int
	loads := make(map[observed.Place]observed.Load, len(e.fleet.instances))
	for _, in := range e.fleet.instances {
		as := e.fleet.promises.carried(in)
		at := observed.Place{Colour: as, Addr: in.Addr}
		load := observed.Load{Held: in.total, Admissions: observed.Admissions{Accepted: in.entered, Refused: in.rejected + in.failed}, At: now}
		refused[side(as)] += in.rejected
		held[side(as)] += in.total
		in.failed += in.Errors
		last := e.loads[at]
		if load.PerSecond = last.PerSecond; now.After(last.At) {
			load.PerSecond = float64(in.entered-last.Accepted) / now.Sub(last.At).Seconds()
		}
		if e.omitting {
			load.Held = 0
		}
		loads[at] = load
	}
	e.loads = loads
	e.witnesses = map[discovery.Colour]observed.Witness{
		discovery.Blue:  {Active: held[0], At: now, Refused: refused[0]},
		discovery.Green: {Active: held[1], At: now, ConnectP99: e.fleet.slow, Refused: refused[1]},
	}
	for c, w := range e.witnesses {
		if w.Reported = w.Active; e.lying {
			w.Active = 0
		}
		if e.omitting {
			w.Reported = 0
		}
		e.witnesses[c] = w
	}
}

// ReportLoads has the proxies of an exact world report loads, at once and exactly.
func (e *Edge) ReportLoads() { e.reported = true }

// Lie has the proxies' counters, but not their load reports, say that nothing is held.
func (e *Edge) Lie() { e.lying = true }

// Omit has the proxies' load reports, but not their counters, leave everything out.
func (e *Edge) Omit(omit bool) { e.omitting = omit }

// Guard holds back what the proxies are told, for a reason; empty tells them.
func (e *Edge) Guard(why string) {
	e.guard = why
	e.ring()
}

// show has rolloutd see the proxies, and what they report.
func (e *Edge) show(s *observed.Seen) {
	if e.conf.Exact && e.reported {
		e.report()
	}
	s.Proxies = make([]observed.Proxy, 0, len(e.proxies))
	for _, p := range e.proxies {
		if !p.unseen {
			seen := p.seen(&e.routes)
			seen.Keeps = e.kept && p.heard.version > 0
			s.Proxies = append(s.Proxies, seen)
		}
	}
	s.Unpublished, s.Loads, s.Witnesses = e.guard, e.loads, e.witnesses
}

// forget is rolloutd not knowing any more what the proxies reported, nor those that do
// not connect again.
func (e *Edge) forget() {
	e.loads, e.witnesses = nil, nil
	for _, p := range e.proxies {
		p.unseen = p.gone
	}
}
