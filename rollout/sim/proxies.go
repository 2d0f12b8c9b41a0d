package sim

import (
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/rollout/observed"
)

// routes is what a proxy is told: the colours' weights, and what each instance is.
type routes struct {
	version   int
	weights   [2]int     // by colour
	endpoints []endpoint // by instance, as each of the two colours
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

// place is where the endpoints have an instance as one of a colour.
func place(in *Instance, side int) int { return 2*in.index + side }

// opens reports whether the instance is open as one of a colour, as far as the routes
// know it.
func (r *routes) opens(in *Instance, side int) bool {
	i := place(in, side)
	return i < len(r.endpoints) && r.endpoints[i] == open
}

// sends reports whether new connections go to the instance, as whatever colour.
func (r *routes) sends(in *Instance) bool {
	return r.weights[0] > 0 && r.opens(in, 0) || r.weights[1] > 0 && r.opens(in, 1)
}

// Proxy is one Envoy.
type Proxy struct {
	edge   *Edge
	node   string
	addr   netip.Addr // its machine
	delay  time.Duration
	nack   string // why it refuses what it is told
	gone   bool   // not connected
	alien  bool   // an xDS client that is no Envoy of ours: it asks for nothing and acknowledges nothing
	cut    bool   // … but its clients still come through it
	ended  bool   // … as the process after it says
	unseen bool   // nor connected since rolloutd started
	back   bool   // it has just connected again, and cannot have been told yet
	lost   time.Time
	told   int    // the version it was sent last
	heard  routes // what it acknowledged
}

// Leave ends the proxy; others take its connections over. Return starts it anew, or
// mends its connection to rolloutd.
func (p *Proxy) Leave() {
	p.leave(false)
	for _, other := range p.edge.proxies {
		if !other.gone && !other.alien {
			for _, in := range p.edge.fleet.instances {
				in.peers.move(p.addr.String(), other.addr.String())
			}
			return
		}
	}
}

// End is Leave of a process that was restarted hot: the one after it says so.
func (p *Proxy) End() {
	p.Leave()
	p.ended = true
}

// Cut has the proxy and rolloutd not hear each other any more; its clients still come
// through it, to where it last heard.
func (p *Proxy) Cut() { p.leave(true) }

func (p *Proxy) leave(cut bool) {
	p.gone, p.cut, p.lost = true, cut, p.edge.Now()
	p.again()
}

func (p *Proxy) Return() {
	if p.gone {
		p.back = true
		p.edge.after(p.delay+time.Millisecond, func() {
			p.back = false
			p.edge.watch()
		})
	}
	p.gone, p.cut, p.unseen = false, false, false
	p.again()
}

// Estrange makes it an xDS client that routes nothing.
func (p *Proxy) Estrange() {
	p.alien, p.heard = true, routes{}
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
	p.edge.ring()
	p.edge.watch()
}

// seen is the proxy as rolloutd sees it, when that is published.
func (p *Proxy) seen(now *routes) observed.Proxy {
	s := observed.Proxy{Node: p.node, Addr: p.addr, Routes: !p.alien, Connected: !p.gone, Lost: p.lost, Ended: p.gone && p.ended, Confirmed: !p.gone && p.heard.version == now.version}
	s.Routed = !p.alien && p.heard.version > 0 && p.heard.weights == now.weights && (!p.gone || p.edge.turned.Before(p.lost))
	if p.heard.version != now.version {
		s.Nack = p.nack
	}
	return s
}

// cutOff is a proxy that is cut off, serves, and sends new connections to the instance;
// nil if there is none. One that an operator has called gone does not count.
func (e *Edge) cutOff(in *Instance, waited []string) *Proxy {
	for _, p := range e.proxies {
		if p.cut && slices.Contains(waited, p.node) && p.heard.sends(in) && e.fleet.hears(p.addr.String()) {
			return p
		}
	}
	return nil
}
