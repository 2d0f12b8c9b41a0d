package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
)

// routes is what a proxy is told: the colours' weights, and what each instance is.
type routes struct {
	version   int
	weights   [2]int     // by colour
	endpoints []endpoint // by instance
}

// endpoint is what an instance is to a proxy.
type endpoint byte

const (
	absent endpoint = iota
	draining
	open
)

func (r *routes) same(other *routes) bool {
	return r.weights == other.weights && slices.Equal(r.endpoints, other.endpoints)
}

// opens reports whether the instance is open, as far as the routes know it.
func (r *routes) opens(in *Instance) bool {
	return in.index < len(r.endpoints) && r.endpoints[in.index] == open
}

// sends reports whether new connections go to the instance.
func (r *routes) sends(in *Instance) bool { return r.weights[in.side] > 0 && r.opens(in) }

// Proxy is one Envoy.
type Proxy struct {
	w     *World
	node  string
	delay time.Duration
	nack  string // why it refuses what it is told
	gone  bool   // not connected
	lost  time.Time
	told  int    // the version it was sent last
	heard routes // what it acknowledged
}

func newProxy(w *World, i int, delay time.Duration) *Proxy {
	return &Proxy{w: w, node: fmt.Sprintf("edge-%d", i), delay: delay}
}

// Proxy is the proxy of that name; one that nobody knew connects now.
func (w *World) Proxy(node string) *Proxy {
	i, known := slices.BinarySearchFunc(w.proxies, node, func(p *Proxy, node string) int { return strings.Compare(p.node, node) })
	if !known {
		w.proxies = slices.Insert(w.proxies, i, &Proxy{w: w, node: node, delay: 10 * time.Millisecond})
		w.watch()
		w.dirty = true
	}
	return w.proxies[i]
}

// Leave ends the proxy's connection to rolloutd, and Return begins a new one.
func (p *Proxy) Leave() {
	p.gone, p.lost = true, p.w.Now()
	p.again()
}

func (p *Proxy) Return() {
	p.gone = false
	p.again()
}

// Gone reports whether it is not connected.
func (p *Proxy) Gone() bool { return p.gone }

// Delay has the proxy acknowledge that much later than it is told.
func (p *Proxy) Delay(d time.Duration) {
	p.delay = d
	p.again()
}

// Refuse has the proxy refuse whatever it is told, and Take take it again.
func (p *Proxy) Refuse(why string) {
	p.nack = why
	p.again()
}

func (p *Proxy) Take() { p.Refuse("") }

// again has the proxy be told anew.
func (p *Proxy) again() {
	p.told = 0
	p.w.dirty = true
	p.w.watch()
}

// seen is the proxy as rolloutd sees it, when so much is published.
func (p *Proxy) seen(version int) rollout.Proxy {
	s := rollout.Proxy{Node: p.node, Connected: !p.gone, Lost: p.lost, Confirmed: !p.gone && p.heard.version == version}
	if p.heard.version != version {
		s.Nack = p.nack
	}
	return s
}

// publish has the proxies hear what is wished, each after its delay.
func (w *World) publish() {
	next := routes{
		version:   w.routes.version + 1,
		weights:   [2]int{int(w.wish.Weights[discovery.Blue]), int(w.wish.Weights[discovery.Green])},
		endpoints: make([]endpoint, len(w.instances)),
	}
	for _, c := range discovery.Colours {
		for _, e := range w.wish.Endpoints[c] {
			switch in := w.byAddr[e.Addr]; {
			case in.Colour != c:
			case e.Draining:
				next.endpoints[in.index] = draining
			default:
				next.endpoints[in.index] = open
			}
		}
	}
	if !next.same(&w.routes) {
		w.routes = next
		for _, p := range w.proxies {
			if p.heard.version > 0 && next.same(&p.heard) {
				p.heard.version = next.version // it has it already
			}
		}
	}
	for _, p := range w.proxies {
		if w.seen.Unpublished != "" || p.gone || p.told == w.routes.version || p.heard.version == w.routes.version {
			continue
		}
		p.told = w.routes.version
		told := w.routes
		w.after(p.delay, func() {
			if p.told == told.version && p.nack == "" && !p.gone {
				p.heard, w.dirty = told, true
				w.watch()
			}
		})
	}
}

// watch keeps which proxies clients come through, those that are connected if there
// are any, and how many send each instance new connections.
func (w *World) watch() {
	w.serving = slices.DeleteFunc(slices.Clone(w.proxies), (*Proxy).Gone)
	if len(w.serving) == 0 {
		w.serving = w.proxies
	}
	for _, in := range w.instances {
		in.openAt = 0
		for _, p := range w.proxies {
			if !p.gone && p.heard.sends(in) {
				in.openAt++
			}
		}
	}
}

// through brings a client to the next instance of a colour that the routes lead to,
// to any where there are none, or nowhere: it is refused. In an exact world the proxy
// tries one after another.
func (w *World) through(r *routes, c int) *Instance {
	all := w.colours[c]
	for range all {
		w.clients.turn++
		in := all[w.clients.turn%len(all)]
		if r != nil && !r.opens(in) {
			continue
		}
		if w.admits(in) {
			return in
		}
		if !w.conf.Exact {
			break
		}
	}
	w.clients.refused++
	return nil
}

// route is what the next client's proxy has heard.
func (w *World) route() *routes {
	if len(w.serving) == 0 {
		return &w.routes
	}
	return &w.serving[w.rng.IntN(len(w.serving))].heard
}

// reporting is how often the proxies of a large world report their loads.
const reporting = time.Second

// report has the proxies say what they see of each instance.
func (w *World) report() {
	now := w.Now()
	loads := make(map[rollout.Place]rollout.Load, len(w.instances))
	for _, in := range w.instances {
		at := rollout.Place{Colour: in.Colour, Addr: in.Addr}
		load := rollout.Load{Held: in.total, Admissions: rollout.Admissions{Accepted: in.entered, Refused: in.rejected}, At: now}
		last := w.seen.Loads[at]
		if load.PerSecond = last.PerSecond; now.After(last.At) {
			load.PerSecond = float64(in.entered-last.Accepted) / now.Sub(last.At).Seconds()
		}
		loads[at] = load
	}
	w.seen.Loads = loads
	w.seen.Witnesses = map[discovery.Colour]rollout.Witness{
		discovery.Blue:  {Active: w.clients.held[0], At: now},
		discovery.Green: {Active: w.clients.held[1], At: now, ConnectP99: w.outside.slow},
	}
}
