// Package sim plays whole rollouts in virtual time: the real rollout.Step and
// rollout.Wished decide, and simulated instances, proxies and clients do what they
// would do. It watches the promises of a rollout at every single close.
//
// A world has one of two crowds. In a large one, ten million connections say,
// clients are counted, not kept: each instance holds so many that were closed so
// many times, and those on their way wait in buckets of one tick. In an exact one
// each client has a moment of its own. The time of each close is exact in both.
package sim

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// Epoch is when a simulation begins.
var Epoch = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// Config is a fleet and its clients.
type Config struct {
	// Blue and Green are how many instances of each colour there are. Live, blue if
	// it is empty, holds Connections.
	Blue, Green, Connections int
	Live                     discovery.Colour
	// Uneven has an instance hold half more or less than another.
	Uneven bool
	// Proxies is how many there are; each hears of a change 20 ms later than the one
	// before it.
	Proxies int
	// Exact is for a small world: each client comes back at its own moment and tries
	// one instance after another, the loop looks at once at whatever happens, and
	// instances are asked at even distances. Otherwise clients come in ticks, one that
	// is refused goes away for a second, and looks and requests are spread as the
	// controller spreads them.
	Exact bool
	// GreenCapacity is what each green instance has room for; 0 is not declared.
	GreenCapacity int
	// Limit is the most connections that a green instance admits; 0 is no limit.
	Limit  int
	Policy policy.Policy
	// Back draws how long an evicted client takes to come back.
	Back func(*rand.Rand) time.Duration
	// Never is the share of evicted clients that do not come back, 0 to 1.
	Never float64
	// Drift is the period in which Organic swings by a fifth up and down; 0 is never.
	Drift time.Duration
	// Tells is what the application says of returning clients.
	Tells Tells
	// Asks is how they take it to be asked to come over.
	Asks Asks
	// Nameless: instances say no boot.
	Nameless bool
	// Organic is how many new clients come per second; none in an exact world.
	Organic float64
	// Detect is how long after an instance died discovery says so.
	Detect time.Duration
	// Latency is how long a request takes to get to an instance, and Jitter how much
	// longer to the last one. 0 has every request take the same time.
	Latency, Jitter time.Duration
}

// World is one simulation: a loop, and the fleet, the edge and the crowd that it works
// on. It is used by one goroutine.
type World struct {
	*ground
	*loop
	Fleet    *Fleet
	Edge     *Edge
	Crowd    *Crowd
	Outside  *Outside
	promises *promises
	next     time.Duration // the next tick
	chores   func()        // what an operator's automation does, every second
}

// New is a fleet at rest.
func New(conf Config) *World {
	if conf.Live == "" {
		conf.Live = discovery.Blue
	}
	g := &ground{conf: conf, rng: rand.New(rand.NewPCG(1, uint64(conf.Connections))), alarm: alarm{due: never, looked: -time.Hour}}
	p, outside := &promises{}, &Outside{ground: g}
	crowd := &Crowd{ground: g}
	fleet := &Fleet{ground: g, crowd: crowd, promises: p, byAddr: map[netip.AddrPort]*Instance{}}
	edge := &Edge{ground: g, fleet: fleet}
	crowd.edge, fleet.edge = edge, edge
	w := &World{
		ground: g, Fleet: fleet, Edge: edge, Crowd: crowd, Outside: outside, promises: p,
		loop: &loop{
			ground: g, Policy: conf.Policy, state: state.New("chat", conf.Live),
			fleet: fleet, edge: edge, outside: outside, promises: p, talks: &talks{ground: g, fleet: fleet},
		},
	}
	p.init(w)
	for range conf.Blue {
		fleet.Add(discovery.Blue)
	}
	for range conf.Green {
		fleet.Add(discovery.Green)
	}
	fleet.populate()
	for i := range conf.Proxies {
		edge.add(i, fmt.Sprintf("edge-%d", i+1), time.Duration(i+1)*20*time.Millisecond)
	}
	for i, in := range fleet.instances {
		if n := len(edge.proxies); n > 0 {
			in.peers.move(direct, edge.proxies[i%n].addr.String())
		}
	}
	if conf.Exact {
		w.next = never
	} else {
		crowd.coming, crowd.first = make([][times]int32, buckets), make([]int32, buckets)
	}
	w.Restart()
	return w
}

// Pass lets virtual time pass.
func (w *World) Pass(d time.Duration) { w.Run(d, func() bool { return false }) }

// Run lets virtual time pass until done holds or d is over, and reports whether
// it holds.
func (w *World) Run(d time.Duration, done func() bool) bool {
	end := w.now + d
	w.ring()
	for !done() {
		if w.nextLook() <= w.now {
			w.look()
		}
		to := min(w.next, end, max(w.nextLook(), w.now), w.nextEvent())
		if w.conf.Exact {
			to = min(to, w.Fleet.nextClose(), w.talks.nextAsk())
		}
		w.Fleet.advance(to)
		w.pass(to)
		switch {
		case w.conf.Exact:
			w.talks.send()
		case w.now >= w.next:
			w.ticks()
		}
		if w.now >= end {
			return done()
		}
	}
	return true
}

// ticks is what happens in a large world in every tick.
func (w *World) ticks() {
	w.next += tick
	w.Crowd.arrivals()
	w.talks.send()
	if w.now%reporting < tick {
		w.Edge.report()
		w.count()
		if w.chores != nil {
			w.chores()
		}
	}
}

func side(c discovery.Colour) int {
	if c == discovery.Blue {
		return 0
	}
	return 1
}
