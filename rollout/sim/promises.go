package sim

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
)

// Report is what a simulation showed.
type Report struct {
	// Took is from the promotion to the last close, as Planned is, and Ended to the
	// end of the rollout, in virtual time.
	Took, Planned, Ended time.Duration
	Closes               int
	// Cap is the most closes a window of length T may have, Peak the most that
	// one had, and Trickle the most that 100 ms had, as a multiple of the even
	// share of the cap.
	Cap, Peak int
	Trickle   float64
	// Out is the most clients that were on their way at a close, and Fill the most
	// that the target held, with those, as a share of its headroom.
	Out  int
	Fill float64
	// Mean is how often the funnel closed a client on average, Most the most often.
	Mean float64
	Most int
	// AtOnce is the most instances that closed connections at the same time.
	AtOnce int
	// Lost is how many were cut off by dying instances.
	Lost int
	// Reasons is how long each was given.
	Reasons map[rollout.Code]time.Duration
	Looks   int
	// Faults are the promises that were broken, the first few.
	Faults []string
}

// promises are watched at each close.
type promises struct {
	world    *World
	every    time.Duration
	cap      int
	grace    time.Duration // after a disturbance, in which the funnel may still act on what it knew
	wide     meter
	narrow   meter
	cuts     meter // of clients that were asked
	peak     int
	narrowed int
	closes   int
	lost     int
	last     time.Duration // the last close
	out      int
	fill     float64
	reasons  map[rollout.Code]time.Duration
	looks    int
	faults   []string
	broken   int
	atOnce   int
	turn     int // the most instances that may close at the same time
	calm     calm
	quiet    time.Duration // no close is allowed until then, from when it is set
	shaken   time.Duration // the last disturbance
	window   int
	rooms    bool // headroom is watched
	room     int  // the headroom of roomOf, which is empty when it has to be summed anew
	roomOf   discovery.Colour
	aside    []*Instance // of that colour, which hold connections and count in no room
	furthest int         // the most clients that were on their way at a close
	all      []Close     // in an exact world
}

// Close is one connection that was closed, by the funnel or by the end of its
// instance.
type Close struct {
	At time.Time
	Of discovery.Colour
}

func (p *promises) init(w *World) {
	conf, f := w.conf, w.conf.Policy.Funnel
	p.world = w
	p.every, p.cap = f.Every.D(), f.Close
	p.grace = p.every + conf.Detect + 200*time.Millisecond + 2*conf.Jitter
	p.wide.length, p.narrow.length = p.every-conf.Jitter, 100*time.Millisecond
	p.cuts.length = p.wide.length
	p.reasons = map[rollout.Code]time.Duration{}
	p.shaken = -time.Hour
	p.window, p.turn, p.rooms = max(0, int(conf.Policy.Window)), math.MaxInt, conf.Exact
	if conf.Exact {
		p.window = 0
	}
	if conf.Tells != Tickets {
		p.window = p.window * 12 / 10 // where returns are estimated
	}
	if s := conf.Policy.Stagger.Instances; !s.IsZero() {
		p.turn = s.Of(conf.Blue)
	}
}

// record keeps one close of an exact world.
func (p *promises) record(in *Instance, at time.Duration) {
	if in.fleet.conf.Exact {
		p.all = append(p.all, Close{Epoch.Add(at), p.carried(in)})
	}
}

// carried is the colour as which proxies send the instance connections, whatever its tags
// say.
func (p *promises) carried(in *Instance) discovery.Colour {
	if m, ok := p.world.state.Members[in.ID]; ok && m.Addr == in.Addr {
		return m.Colour
	}
	return in.Side()
}

// calm is a time in which a window may have fewer closes than the cap.
type calm struct {
	from, until time.Duration
	most        int
}

// disturb says that something happened which the funnel cannot know yet.
func (p *promises) disturb(now time.Duration) { p.shaken = now }

func (p *promises) fault(at time.Duration, format string, args ...any) {
	if p.broken++; p.broken <= 5 {
		p.faults = append(p.faults, fmt.Sprintf("%v: ", at)+fmt.Sprintf(format, args...))
	}
}

// closed holds the promises against one close. In an exact world those of the pace
// are the test's own, which knows what it changes.
func (p *promises) closed(in *Instance, at time.Duration) {
	w := p.world
	p.closes++
	p.last = at
	p.furthest = max(p.furthest, w.Crowd.out)
	if in.openAt > 0 {
		p.fault(at, "%s closed a connection while %d proxies send it new ones", in.name, in.openAt)
	}
	if alone := w.Edge.alone; alone >= 0 && at-max(alone, w.seen.Watching.Sub(Epoch)) > p.every+6*time.Second && w.Outside.StoreIsUp() {
		p.fault(at, "%s closed a connection although no proxy is connected since %v", in.name, alone)
	}
	if cut := w.Edge.cutOff(in, w.state.Proxies); cut != nil && w.Outside.StoreIsUp() && at-cut.lost.Sub(Epoch) > p.every+time.Second {
		p.fault(at, "%s closed a connection while %s, which is cut off, serves and sends it new ones", in.name, cut.node)
	}
	if !w.conf.Exact {
		p.paced(at)
		if at-p.shaken >= p.grace {
			p.bounded(at)
		}
		return
	}
	p.record(in, at)
	// What cannot be stored cannot stop the running step, and clients that come by
	// themselves are beyond everybody.
	if w.Outside.StoreIsUp() && w.Crowd.came == 0 {
		p.bounded(at)
	}
}

// overstayed holds them against the close of a client that was asked: as the asks, so
// their closes have the pace of the cap, and none while nothing may be closed.
func (p *promises) overstayed(in *Instance, at time.Duration) {
	p.last = at
	if n := p.cuts.add(at); n > p.cap+1 {
		p.fault(at, "%d closes of asked clients in %v, the cap is %d", n, p.cuts.length, p.cap)
	}
	if in.openAt > 0 {
		p.fault(at, "%s closed a connection while %d proxies send it new ones", in.name, in.openAt)
	}
}

// paced is how many closes a time has.
func (p *promises) paced(at time.Duration) {
	n := p.wide.add(at)
	if n > p.peak {
		p.peak = n
		if n > p.cap+1 {
			p.fault(at, "%d closes in %v, the cap is %d", n, p.wide.length, p.cap)
		}
	}
	if at >= p.calm.from+p.every && at < p.calm.until && n > p.calm.most {
		p.fault(at, "%d closes in %v, in this trouble it may be %d", n, p.wide.length, p.calm.most)
	}
	p.narrowed = max(p.narrowed, p.narrow.add(at))
	if n := len(p.world.Fleet.closing); n > p.atOnce {
		p.atOnce = n
		if n > p.turn {
			p.fault(at, "%d instances let connections go at once, it may be %d", n, p.turn)
		}
	}
	if at < p.quiet {
		p.fault(at, "a close although the funnel had to stand still until %v", p.quiet)
	}
}

// bounded is how many clients are on their way, and whether there is room for them.
func (p *promises) bounded(at time.Duration) {
	w := p.world
	out := w.Crowd.out
	p.out = max(p.out, out)
	if p.window > 0 && out > p.window {
		p.fault(at, "%d clients are on their way, the window is %d", out, p.window)
	}
	if !p.rooms {
		return
	}
	to := w.state.Live
	if w.state.Rollout != nil {
		to = w.state.Rollout.To
	}
	if p.roomOf != to {
		p.room, _ = w.Fleet.room(to, int(w.Policy.Headroom))
		p.roomOf, p.aside = to, slices.DeleteFunc(w.Fleet.Colour(to), (*Instance).roomy)
	}
	if p.room == 0 {
		return
	}
	full := w.Fleet.held[side(to)] + out
	for _, in := range p.aside {
		full -= in.total
	}
	p.fill = max(p.fill, float64(full)/float64(p.room))
	if full > p.room {
		p.fault(at, "%s has room for %d; it holds and will be sent %d", to, p.room, full)
	}
}

// meter counts what falls into the window of a length that ends now, half open.
type meter struct {
	length time.Duration
	times  []time.Duration // a ring of a power of two
	from   int
	to     int
}

func (m *meter) add(at time.Duration) int {
	for m.from < m.to && at-m.times[m.from&(len(m.times)-1)] >= m.length {
		m.from++
	}
	if m.to-m.from == len(m.times) {
		bigger := make([]time.Duration, max(1024, 2*len(m.times)))
		for i := m.from; i < m.to; i++ {
			bigger[i&(len(bigger)-1)] = m.times[i&(len(m.times)-1)]
		}
		m.times = bigger
	}
	m.times[m.to&(len(m.times)-1)] = at
	m.to++
	return m.to - m.from
}

// Closes lists every close of an exact world.
func (w *World) Closes() []Close { return w.promises.all }

// Peak is the most closes that a window of that length had, half open, in an exact
// world.
func (w *World) Peak(length time.Duration) int {
	m, most := meter{length: length}, 0
	for _, c := range w.promises.all {
		most = max(most, m.add(c.At.Sub(Epoch)))
	}
	return most
}

// Furthest is the most clients that were on their way at a close.
func (w *World) Furthest() int { return w.promises.furthest }

// disconnects is how often clients were closed by the funnel in all, and how many
// clients there are.
func (w *World) disconnects() (closed, all int) {
	add := func(k, n int) { closed, all = closed+k*n, all+n }
	for _, in := range w.Fleet.instances {
		for k, n := range in.held {
			add(k, n)
		}
	}
	for _, b := range w.Crowd.coming {
		for k, n := range b {
			add(k, int(n))
		}
	}
	for k, n := range w.Crowd.never {
		add(k, n)
	}
	return closed, all
}

// Faults are the promises that were broken, the first few.
func (w *World) Faults() []string { return w.promises.faults }

// Report sums up.
func (w *World) Report() Report {
	p := w.promises
	w.because(w.reason)
	closed, all := w.disconnects()
	if want := w.conf.Connections + w.Crowd.came; all != want {
		p.fault(w.now, "%d clients are somewhere, there were %d", all, want)
	}
	return Report{
		Closes: p.closes, Cap: p.cap, Peak: p.peak,
		Trickle: float64(p.narrowed) / (float64(p.cap) * 0.1 / p.every.Seconds()),
		Out:     p.out, Fill: p.fill, Mean: float64(closed) / float64(all), Most: w.Crowd.most, AtOnce: p.atOnce, Lost: p.lost,
		Reasons: p.reasons, Looks: p.looks, Faults: p.faults,
	}
}
