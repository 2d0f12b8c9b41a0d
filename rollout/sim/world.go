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
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
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
	Policy rollout.Policy
	// Back draws how long an evicted client takes to come back.
	Back func(*rand.Rand) time.Duration
	// Never is the share of evicted clients that do not come back, 0 to 1.
	Never float64
	// Drift is the period in which Organic swings by a fifth up and down; 0 is never.
	Drift time.Duration
	// Unclear: the application does not tell returning clients from new ones.
	Unclear bool
	// Organic is how many new clients come per second; none in an exact world.
	Organic float64
	// Detect is how long after an instance died discovery says so.
	Detect time.Duration
	// Latency is how long a request takes to get to an instance, and Jitter how much
	// longer to the last one. 0 has every request take the same time.
	Latency, Jitter time.Duration
}

// World is one simulation. It is used by one goroutine.
type World struct {
	// Policy is what the next promotion starts from.
	Policy rollout.Policy
	// Rests is called whenever a look of the loop comes to rest; nil is not.
	Rests func()

	conf Config
	rng  *rand.Rand
	now  time.Duration // since Epoch

	queue events
	seq   int
	next  time.Duration // the next tick

	// what the control plane knows
	state   rollout.State
	seen    rollout.Seen // kept up to date all the time, but for the proxies
	wish    rollout.Wish
	reason  rollout.Reason
	since   time.Duration // when the reason was first given
	due     time.Duration // when to decide again
	dirty   bool
	counted bool // nothing but counts is new
	looked  time.Duration
	talking map[discovery.InstanceID]*talk
	talks   []*talk // the same, in a stable order
	routes  routes  // what the proxies are told

	outside   outside
	instances []*Instance
	byAddr    map[netip.AddrPort]*Instance
	colours   [2][]*Instance // sorted by name
	closing   []*Instance    // those with closes to come
	dues      []uint64       // scratch of advance
	proxies   []*Proxy       // sorted by name
	serving   []*Proxy       // those that clients come through
	clients   clients
	promises  promises
	chores    func() // what an operator's automation does, every second
}

// New is a fleet at rest.
func New(conf Config) *World {
	if conf.Live == "" {
		conf.Live = discovery.Blue
	}
	w := &World{
		Policy: conf.Policy, conf: conf, rng: rand.New(rand.NewPCG(1, uint64(conf.Connections))), due: never, looked: -time.Hour,
		state:  rollout.NewState("chat", conf.Live),
		byAddr: map[netip.AddrPort]*Instance{},
	}
	w.promises.init(conf)
	for range conf.Blue {
		w.Add(discovery.Blue)
	}
	for range conf.Green {
		w.Add(discovery.Green)
	}
	w.populate()
	for i := range conf.Proxies {
		w.proxies = append(w.proxies, newProxy(w, i+1, time.Duration(i+1)*20*time.Millisecond))
	}
	w.watch()
	if conf.Exact {
		w.next = never
	} else {
		w.clients.coming, w.clients.organic = make([][times]int32, buckets), make([]int32, buckets)
	}
	w.Restart()
	return w
}

// populate has the live side hold what it is to hold.
func (w *World) populate() {
	all := w.colours[side(w.conf.Live)]
	left := w.conf.Connections
	for i, in := range all {
		rest := len(all) - i
		n := (left + rest - 1) / rest
		if w.conf.Uneven && rest > 1 { // half more or less
			n = n/2 + w.rng.IntN(n+1)
		}
		left -= n
		w.hold(in, n)
	}
}

func side(c discovery.Colour) int {
	if c == discovery.Blue {
		return 0
	}
	return 1
}

// Now is the time of the world's clock.
func (w *World) Now() time.Time { return Epoch.Add(w.now) }

// State is what is stored.
func (w *World) State() rollout.State { return w.state }

// Reason is why the last look came to rest.
func (w *World) Reason() rollout.Reason { return w.reason }

// Wish is what should be by what is stored and seen now.
func (w *World) Wish() rollout.Wish { return rollout.Wished(w.state, w.see()) }

// Steady reports whether no rollout is under way.
func (w *World) Steady() bool { return w.state.Rollout == nil }

// Faults are the promises that were broken, the first few.
func (w *World) Faults() []string { return w.promises.faults }
