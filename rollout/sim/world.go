// Package sim plays whole rollouts of ten million connections in virtual time:
// the real rollout.Step and rollout.Wished decide, and simulated instances,
// clients and proxies do what they would do. It watches the promises of a rollout
// at every single close.
//
// Clients are counted, not kept: each instance holds so many that were closed so
// many times, and those on their way wait in buckets of one tick. The time of each
// close is exact.
package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
)

// tick is how exact the moments are at which clients arrive; closes, orders and
// decisions have exact moments.
const tick = 10 * time.Millisecond

// crowd is how long after the last look the next one is, and glance how late
// counts are looked at that no decision waits for. The controller's are 2 and
// 250 ms; the promises have to hold all the more.
const (
	crowd  = 10 * time.Millisecond
	glance = time.Second
)

// epoch is when a simulation begins.
var epoch = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// Config is a fleet and its clients.
type Config struct {
	// Blue and Green are how many instances of each colour there are. Blue is
	// live and holds Connections, an instance half more or less than another.
	Blue, Green, Connections int
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
	// Organic is how many new clients come per second.
	Organic float64
	// Detect is how long after an instance died discovery says so.
	Detect time.Duration
	// Jitter is how much later than to the first an order gets to the last
	// instance. 0 has every request take the same time.
	Jitter time.Duration
}

// World is one simulation. It is used by one goroutine.
type World struct {
	conf Config
	rng  *rand.Rand
	now  time.Duration // since epoch

	queue events
	seq   int
	next  time.Duration // the next tick

	// what the control plane knows
	state   rollout.State
	seen    rollout.Seen
	wish    rollout.Wish
	reason  rollout.Reason
	since   time.Duration // when the reason was first given
	due     time.Duration // when to decide again, never if 0
	dirty   bool
	counted bool // nothing but counts is new
	looked  time.Duration
	version int           // of what the proxies are told
	open    []bool        // by instance: new connections are to go there
	weights [2]int        // by colour, as the proxies are told
	asking  bool          // the gates are being asked
	slow    time.Duration // how long connecting to green takes
	sulk    float64       // the share of new connections that green refuses
	gate    func() string // why the gate is closed; empty when it is open

	instances []*instance
	byAddr    map[netip.AddrPort]*instance
	talking   map[discovery.InstanceID]*talk
	talks     []*talk     // the same, in a stable order
	closing   []*instance // those with closes to come
	dues      []uint64    // scratch of advance
	proxies   []*proxy
	clients   clients
	promises  promises
	chores    func() // what an operator's automation does, every second
}

type proxy struct {
	delay   time.Duration
	heard   int            // the version it acknowledged
	told    int            // the version it was sent last
	weights [2]int         // by colour
	open    [2][]*instance // by colour
	turn    [2]int         // round robin
}

type event struct {
	at  time.Duration
	seq int
	do  func()
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// New is a fleet at rest.
func New(conf Config) *World {
	w := &World{
		conf: conf, rng: rand.New(rand.NewPCG(1, uint64(conf.Connections))),
		state:  rollout.NewState("chat", discovery.Blue),
		seen:   rollout.Seen{Instances: map[discovery.InstanceID]rollout.Sighting{}, Watching: epoch},
		byAddr: map[netip.AddrPort]*instance{}, talking: map[discovery.InstanceID]*talk{}, version: 1,
	}
	w.promises.init(conf)
	for left, i := conf.Connections, 0; i < conf.Blue; i++ {
		in := w.Add(discovery.Blue)
		n := left / (conf.Blue - i) // of what is left, half more or less
		if i < conf.Blue-1 {
			n = n/2 + w.rng.IntN(n+1)
		}
		left -= n
		in.held[0], in.total, in.accepted = n, n, uint64(n)
		w.clients.held[side(discovery.Blue)] += n
	}
	for range conf.Green {
		w.Add(discovery.Green)
	}
	for i := range 4 {
		w.proxies = append(w.proxies, &proxy{delay: time.Duration(i+1) * 20 * time.Millisecond})
	}
	return w
}

// Add starts one more instance.
func (w *World) Add(c discovery.Colour) *instance {
	i := len(w.instances)
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(1 + side(c)), byte(i >> 8), byte(i)}), 9000)
	in := &instance{
		Instance: discovery.Instance{
			ID: discovery.InstanceID(fmt.Sprintf("chat-%s%05d", c[:1], i+1)), Colour: c, Addr: addr,
			Health: discovery.Passing, Drain: "http://" + addr.String(),
		},
		index: i, side: side(c),
		latency: 2*time.Millisecond + w.conf.Jitter*time.Duration(i%8)/7,
	}
	if c == discovery.Green {
		in.Capacity, in.limit = w.conf.GreenCapacity, w.conf.Limit
	}
	w.instances = append(w.instances, in)
	w.byAddr[in.Addr] = in
	w.rediscover()
	return in
}

func side(c discovery.Colour) int {
	if c == discovery.Blue {
		return 0
	}
	return 1
}

// after has do happen d from now.
func (w *World) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, event{at: w.now + d, seq: w.seq, do: do})
}

// Run lets virtual time pass until done holds or d is over, and reports whether
// it holds.
func (w *World) Run(d time.Duration, done func() bool) bool {
	end := w.now + d
	for !done() {
		if w.now >= end {
			return false
		}
		to := min(w.next, end)
		if len(w.queue) > 0 {
			to = min(to, w.queue[0].at)
		}
		if wake := w.wake(); wake > 0 {
			to = min(to, max(wake, w.now))
		}
		w.advance(to)
		w.now = to
		for len(w.queue) > 0 && w.queue[0].at <= w.now {
			heap.Pop(&w.queue).(event).do()
		}
		if w.now >= w.next {
			w.next += tick
			w.arrivals()
			w.talk()
			if w.now%reporting < tick {
				w.report()
				if w.chores != nil {
					w.chores()
				}
			}
		}
		if wake := w.wake(); wake > 0 && wake <= w.now {
			w.look()
		}
	}
	return true
}

// wake is when to look next: a crowd after the last look when there is news, a
// glance after it when only counts are new, and when the decision said so; 0 is
// never.
func (w *World) wake() time.Duration {
	wake := w.due
	if soon := w.looked + crowd; w.dirty && (wake == 0 || soon < wake) {
		wake = soon
	}
	if soon := w.looked + glance; w.counted && (wake == 0 || soon < wake) {
		wake = soon
	}
	return wake
}

func (w *World) clock() time.Time { return epoch.Add(w.now) }

// Steady reports whether no rollout is under way.
func (w *World) Steady() bool { return w.state.Rollout == nil }
