package rollout

import (
	"container/heap"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// world is a simulated fleet in virtual time: the real Step and the real Wished,
// instances that follow orders as the drain contract says, clients that come
// back, proxies that acknowledge late.
type world struct {
	t     testing.TB
	now   time.Time
	queue events
	seq   int

	policy    Policy // of the next promotion
	state     State
	instances map[discovery.InstanceID]*instance
	proxies   map[string]*proxy
	fleetErr  string
	suspect   string
	unpub     string // why the proxies are told nothing
	rests     func() // called whenever a look comes to rest
	watching  time.Time
	storeDown bool
	unclear   bool                // green never tells returns
	gates     map[string]*Reading // what the gates would answer
	asked     map[string]Reading  // what they have answered
	hooks     map[discovery.InstanceID]HookRun
	reported  bool // the proxies report loads

	latency  time.Duration // of one request to an instance, one way
	comeBack func() time.Duration

	dirty     bool // something was seen since the last look
	due       time.Time
	reason    Reason
	evictions []eviction
	refused   int
	// clients on their way back, and those that came without having been evicted
	outstanding, organic int
	far                  int                              // the most that were on their way at once
	brim                 []discovery.InstanceID           // closed at the proxies, though they serve
	byColour             map[discovery.Colour][]*instance // made when the first client arrives
	turn                 int
}

type instance struct {
	discovery.Instance
	gone      bool // deregistered
	dead      bool // the process does not exist
	deaf      bool // its endpoint does not answer
	stubborn  bool // the hook cannot end it
	full      bool // refuses every new connection
	status    drain.Status
	returned  uint64
	running   int // number of the order that runs, so that a replaced one stops
	sight     Sighting
	nextAsk   time.Time
	inFlight  bool
	lastOrder drain.Order
}

type proxy struct {
	delay     time.Duration
	nack      string // why it refuses what it is told
	connected bool
	lost      time.Time
	told      string                        // what it was sent last
	heard     string                        // what it acknowledged
	open      map[discovery.InstanceID]bool // whom it sends new connections to
}

type eviction struct {
	at   time.Time
	from discovery.Colour
}

type event struct {
	at  time.Time
	seq int
	do  func()
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].seq < q[j].seq
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

var epoch = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func newWorld(t testing.TB, blue, green, connections, proxies int) *world {
	w := &world{
		t: t, now: epoch, watching: epoch, state: NewState("chat", discovery.Blue),
		byColour: map[discovery.Colour][]*instance{}, instances: map[discovery.InstanceID]*instance{}, proxies: map[string]*proxy{},
		gates: map[string]*Reading{}, hooks: map[discovery.InstanceID]HookRun{},
		latency: time.Millisecond, comeBack: func() time.Duration { return 200 * time.Millisecond },
	}
	w.policy = DefaultPolicy()
	w.policy.Funnel = units.Funnel{Close: 10, Every: units.Duration(3 * time.Second)}
	for i := range blue {
		in := w.add(discovery.Blue, i)
		in.status.Active = connections/blue + min(1, max(0, connections%blue-i))
		in.status.Accepted = uint64(in.status.Active)
	}
	for i := range green {
		w.add(discovery.Green, i)
	}
	for i := range proxies {
		w.proxies[fmt.Sprintf("edge-%d", i+1)] = &proxy{connected: true, delay: time.Duration(i+1) * 20 * time.Millisecond}
	}
	return w
}

func (w *world) add(c discovery.Colour, i int) *instance {
	host := byte(1)
	if c == discovery.Green {
		host = 2
	}
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, host, byte(i >> 8), byte(i)}), 9000)
	in := &instance{Instance: discovery.Instance{
		ID: discovery.InstanceID(fmt.Sprintf("chat-%s%04d", c[:1], i+1)), Colour: c, Addr: addr,
		Health: discovery.Passing, Drain: "http://" + addr.String(),
	}, status: drain.Status{State: drain.Serving}}
	w.instances[in.ID] = in
	return in
}

func (w *world) at(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, event{at: w.now.Add(d), seq: w.seq, do: do})
}

// run lets virtual time pass until done holds or d is over, looking as the
// controller does: whenever something happened or was to happen.
func (w *world) run(d time.Duration, done func() bool) bool {
	end := w.now.Add(d)
	w.dirty = true
	for !done() {
		if w.dirty || !w.due.IsZero() && !w.due.After(w.now) {
			w.dirty = false
			w.due = w.look()
		}
		wake, next := w.due, end
		if len(w.queue) > 0 && w.queue[0].at.Before(next) {
			next = w.queue[0].at
		}
		if !wake.IsZero() && wake.Before(next) {
			next = wake
		}
		if next.After(w.now) {
			w.now = next
		}
		for len(w.queue) > 0 && !w.queue[0].at.After(w.now) {
			heap.Pop(&w.queue).(event).do()
		}
		if !w.now.Before(end) {
			return done()
		}
	}
	return true
}

func (w *world) steady() bool { return w.state.Rollout == nil }

// look is the controller's look, without its goroutines.
func (w *world) look() time.Time {
	for range 50 {
		w.publish()
		d := Step(w.state, w.seen(), w.now)
		w.reason = d.Reason
		if d.Changed {
			if err := d.Next.Check(); err != nil {
				w.t.Fatalf("a decision no state may have: %v", err)
			}
			if w.storeDown {
				w.reason = reason(StoreFailing, "waiting: %v", Unstored(syscall.ENOSPC))
				w.rest()
				return w.now.Add(time.Second)
			}
			w.remember(d.Next)
			continue
		}
		w.rest()
		if d.AskGates {
			w.askGates()
		}
		w.callHooks(Wished(w.state, w.half()).Hooks)
		w.talk(d.Ask)
		return w.wake(d.Wake)
	}
	w.t.Fatalf("Step never comes to rest: %v", w.reason)
	return time.Time{}
}

func (w *world) rest() {
	if w.rests != nil {
		w.rests()
	}
}

func (w *world) wake(t time.Time) time.Time {
	if !t.IsZero() && !t.After(w.now) {
		t = w.now.Add(time.Millisecond)
	}
	for _, in := range w.instances {
		if !in.inFlight && in.nextAsk.After(w.now) && (t.IsZero() || in.nextAsk.Before(t)) {
			t = in.nextAsk
		}
	}
	return t
}

func (w *world) remember(s State) {
	data, err := EncodeState(s)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.state, err = DecodeState(data); err != nil {
		w.t.Fatalf("a state that cannot be read back: %v\n%s", err, data)
	}
}

// restart is rolloutd dying and starting again: only the state survives.
func (w *world) restart() {
	w.watching = w.now
	for _, in := range w.instances {
		in.sight, in.inFlight, in.nextAsk = Sighting{}, false, w.now
	}
}

func (w *world) fleet() discovery.Fleet {
	f := discovery.Fleet{Err: w.fleetErr, Suspect: w.suspect}
	for _, in := range w.instances {
		if !in.gone {
			f.Instances = append(f.Instances, in.Instance)
		}
	}
	slices.SortFunc(f.Instances, func(a, b discovery.Instance) int {
		return strings.Compare(string(a.ID), string(b.ID))
	})
	return f
}

// wished is what the proxies should hear: weights, and who is closed to new
// connections.
func (w *world) wished() (string, map[discovery.InstanceID]bool) {
	var text strings.Builder
	share := w.state.Weights()
	fmt.Fprint(&text, share)
	open := map[discovery.InstanceID]bool{}
	wish := Wished(w.state, w.half())
	for _, c := range discovery.Colours {
		for _, e := range wish.Endpoints[c] {
			if e.Draining {
				text.WriteString(string(e.ID))
			} else {
				open[e.ID] = share[c] > 0
			}
		}
	}
	return text.String(), open
}

// closed lists the instances that serve and that the proxies send nothing.
func closed(open map[discovery.InstanceID]bool, all map[discovery.InstanceID]*instance) []discovery.InstanceID {
	var out []discovery.InstanceID
	for id, in := range all {
		if _, listed := open[id]; !listed && in.status.State == drain.Serving {
			out = append(out, id)
		}
	}
	return out
}

// half is what Wished needs of what is seen.
func (w *world) half() Seen {
	s := Seen{Fleet: w.fleet(), Instances: map[discovery.InstanceID]Sighting{}, Watching: w.watching}
	for id, in := range w.instances {
		s.Instances[id] = in.sight
	}
	s.Gates, s.Hooks = w.asked, w.hooks
	if w.reported {
		w.report(&s)
	}
	return s
}

func (w *world) seen() Seen {
	s := w.half()
	s.Unpublished = w.unpub
	want, _ := w.wished()
	for node, p := range w.proxies {
		s.Proxies = append(s.Proxies, Proxy{Node: node, Connected: p.connected, Lost: p.lost, Confirmed: p.connected && p.heard == want})
		if p.nack != "" && p.heard != want {
			s.Proxies[len(s.Proxies)-1].Nack = p.nack
		}
	}
	slices.SortFunc(s.Proxies, func(a, b Proxy) int {
		return strings.Compare(a.Node, b.Node)
	})
	return s
}

// publish has each connected proxy hear the wishes after its delay.
func (w *world) publish() {
	want, open := w.wished()
	for _, p := range w.proxies {
		if w.unpub == "" && p.connected && p.heard != want && p.told != want {
			p.told = want
			w.at(p.delay, func() {
				if p.connected && p.told == want && p.nack == "" {
					p.heard, p.open, w.dirty = want, open, true
					w.brim = closed(open, w.instances)
				}
			})
		}
	}
}

// talk tells and asks the instances as the watcher does.
func (w *world) talk(ask []discovery.InstanceID) {
	wish := Wished(w.state, w.half())
	for key, told := range Assignments(w.state, wish) {
		in := w.instances[key]
		news := in != nil && !in.sight.At.IsZero() && in.sight.Err == "" && !told.Instruction.ShownBy(in.sight.Status)
		if in == nil || in.inFlight || !news && w.now.Before(in.nextAsk) && !slices.Contains(ask, key) {
			continue
		}
		in.inFlight = true
		in.nextAsk = w.now.Add(told.Every)
		sent := w.watching
		w.at(w.latency, func() { w.arrive(in, told, news) })
		w.at(2*w.latency, func() {
			if sent != w.watching {
				return // whoever asked does not live any more
			}
			in.inFlight, w.dirty = false, true
			var err error
			if in.dead || in.deaf {
				err = in.silence()
			}
			in.sight = in.sight.After(in.answer(w), err, w.now)
			in.sight.Refused = in.dead
		})
	}
}

func (w *world) do(c Command) error {
	next, _, err := c.apply(w.policy, w.state, w.seen(), w.now)
	if err == nil && !w.storeDown {
		w.remember(next)
	}
	return err
}

func (w *world) held(c discovery.Colour) int {
	n := 0
	for _, in := range w.instances {
		if in.Colour == c && !in.dead {
			n += in.status.Active
		}
	}
	return n
}

// peak is the most evictions in any window of length d, half open.
func peak(all []eviction, d time.Duration) int {
	most, from := 0, 0
	for i := range all {
		for all[i].at.Sub(all[from].at) >= d {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}
