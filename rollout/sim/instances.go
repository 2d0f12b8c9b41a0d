package sim

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// times is how many closes of one client are told apart; more count as the last.
const times = 6

// Instance is one process, with the drain contract as drain.Gate keeps it.
type Instance struct {
	// The registration; it is changed by methods only.
	discovery.Instance
	// Deaf: its drain endpoint does not answer.
	Deaf bool
	// Mute: it does not say who is connected to it.
	Mute bool
	// Full: it refuses every new connection.
	Full bool
	// Stubborn: a hook cannot end it.
	Stubborn bool
	// Errors is how many of its answers the proxies call errors between two reports.
	Errors uint64
	// Limit is the most connections that it admits; 0 is no limit.
	Limit int
	// Claims is how many connections it says that it holds; nil is the truth.
	Claims *int
	// Lingers is how many connections it says have not ended that it told to go.
	Lingers int
	// Boasts is how many connections it says that it let go and never had.
	Boasts uint64
	// Modest: it says that it never accepted a connection; Forges: that everybody whom it
	// accepted brought a ticket.
	Modest, Forges bool
	// Stranger is an epoch that it remembers from elsewhere: it refuses every word that is
	// older. 0 is none.
	Stranger uint64
	// Handshake is how long its handshakes take, in ms; nil is not told.
	Handshake *int

	fleet       *Fleet
	boots       int  // how often its process was started
	twinned     bool // it was registered twice: what it is told under one name is not known under the other
	name        string
	index, side int
	dead        bool // the process does not exist
	gone        bool // deregistered

	held  [times]int // connections by how often the funnel closed their clients; without those asked
	total int

	accepted, evicted, returned, refused uint64
	failed                               uint64 // answers that were errors
	flapped                              uint64 // returned although nobody let them go
	entered, rejected                    uint64 // as the proxies count
	peers                                peers  // in an exact world

	rollout        string
	epoch, step    uint64
	ordered        bool
	ceiling        *int
	pick           contract.Pick
	next, distance time.Duration // the schedule of the standing order
	left, level    int
	listed         bool // in Fleet.closing

	nth     int           // of its colour
	notice  time.Duration // of the standing order
	notices notices

	openAt  int           // how many proxies send it new connections
	latency time.Duration // of one request, one way
}

// Status is what its drain endpoint says.
func (in *Instance) Status() contract.Status {
	s := contract.Status{
		State: contract.Serving, Boot: in.boot(), Active: in.total, Accepted: in.accepted, Evicted: in.evicted, Refused: in.refused,
		HandshakeMS: in.Handshake, Limit: in.Limit, Ceiling: in.ceiling, Rollout: in.rollout, Epoch: in.epoch, Step: in.step,
	}
	s.Epoch = max(s.Epoch, in.Stranger)
	if in.Claims != nil {
		s.Active, s.Accepted = *in.Claims, max(s.Accepted, uint64(*in.Claims)) // a liar that does not contradict itself
	}
	if in.Modest {
		s.Accepted = 0
	}
	in.notices.say(in, &s)
	s.Accepted, s.Evicted = s.Accepted+in.Boasts, s.Evicted+in.Boasts
	in.fleet.conf.Tells.say(&s, in.returned+in.flapped, in.returned)
	if in.Forges {
		s.Returned, s.Ticketed = new(s.Accepted), new(s.Accepted)
	}
	if in.fleet.conf.Exact && !in.Mute {
		s.Peers = in.peers.said()
	}
	if in.ordered {
		s.State = contract.Draining
		if s.Lingering = in.Lingers; s.Held() == 0 {
			s.State = contract.Drained
		}
	}
	return s
}

// Side is the colour that it really is, whatever it is registered as.
func (in *Instance) Side() discovery.Colour { return discovery.Colours[in.side] }

// Name is its id or, when another process has that now, where it was too.
func (in *Instance) Name() string { return in.name }

// Holds is how many connections it has.
func (in *Instance) Holds() int { return in.total }

// Draining reports whether it was ordered to refuse new connections.
func (in *Instance) Draining() bool { return in.ordered }

// Pick is which connections it was last ordered to let go first.
func (in *Instance) Pick() contract.Pick { return in.pick }

// Dead reports whether its process does not exist, Gone whether discovery does not
// know it.
func (in *Instance) Dead() bool { return in.dead }
func (in *Instance) Gone() bool { return in.gone }

// hear is an instance being told.
func (in *Instance) hear(told desired.Instruction) {
	f := in.fleet
	switch o := told.Drain; {
	case o == nil && told.Serve.Epoch < in.epoch:
		f.promises.fault(f.now, "%s was told to serve by epoch %d after %d", in.ID, told.Serve.Epoch, in.epoch)
	case o == nil:
		in.rollout, in.epoch, in.step, in.ordered, in.ceiling = told.Serve.Rollout, told.Serve.Epoch, 0, false, nil
		in.left = 0
		in.notices.void(in)
	case !in.ordered && o.Epoch == in.epoch && in.twinned: // it refuses
	case o.Epoch < in.epoch, o.Epoch == in.epoch && o.Step < in.step, !in.ordered && o.Epoch == in.epoch:
		f.promises.fault(f.now, "%s got the order %d.%d after %d.%d", in.ID, o.Epoch, o.Step, in.epoch, in.step)
	case in.ordered && o.Epoch == in.epoch && o.Step == in.step:
	default:
		if err := o.Check(); err != nil {
			f.promises.fault(f.now, "%s got a bad order: %v", in.ID, err)
			return
		}
		if o.NoticeMS > 0 && !in.askable() {
			f.promises.fault(f.now, "%s was told to ask, and cannot", in.ID)
		}
		if in.rollout != o.Rollout {
			in.notices.void(in)
		}
		in.notice = time.Duration(o.NoticeMS) * time.Millisecond
		in.holds(o.Ceiling == nil)
		in.rollout, in.epoch, in.step, in.ordered, in.ceiling, in.pick = o.Rollout, o.Epoch, o.Step, true, o.Ceiling, o.Pick
		in.left, in.level = 0, in.untold()
		if o.Ceiling == nil || in.untold() <= *o.Ceiling {
			return
		}
		in.left = in.untold() - *o.Ceiling
		in.next = f.now + time.Duration(o.StartMS)*time.Millisecond
		in.distance = time.Duration(o.OverMS) * time.Millisecond / time.Duration(in.left)
		if !in.listed {
			in.listed = true
			f.closing = append(f.closing, in)
		}
	}
}

// release takes one of the connections away, whichever, and says how often its
// client was closed before.
func (in *Instance) release() int {
	k := in.draw()
	in.held[k]--
	in.total--
	in.peers.release()
	in.fleet.held[in.side]--
	return k
}

// untold is how many connections were not asked.
func (in *Instance) untold() int { return in.total - len(in.notices.open) }

// draw draws one of the connections that were not asked.
func (in *Instance) draw() int {
	for k := range 2 {
		if in.held[k] == in.untold() {
			return k
		}
	}
	nth := in.fleet.rng.IntN(in.untold())
	for k, n := range in.held {
		if nth < n {
			return k
		}
		nth -= n
	}
	return 0
}

// admits is a new connection at the instance, from a machine.
func (in *Instance) admits(from string) bool {
	f := in.fleet
	switch {
	case in.dead, in.side == 1 && f.sulk > 0 && f.rng.Float64() < f.sulk:
		in.rejected++
		return false
	case in.ordered, in.Full, in.Limit > 0 && in.total >= in.Limit:
		in.rejected++
		in.refused++
		in.peers.refuse(from)
		return false
	}
	in.hold(1, from)
	in.entered++
	return true
}

// hold has the instance hold n connections more from a machine, of clients that were
// never closed.
func (in *Instance) hold(n int, from string) {
	if in.fleet.conf.Exact {
		in.peers.hold(n, from)
	}
	in.held[0] += n
	in.total += n
	in.accepted += uint64(n)
	in.fleet.held[in.side] += n
}

// Crash ends the process; its clients notice at once and come back. Discovery
// notices later.
func (in *Instance) Crash() {
	f := in.fleet
	for k, n := range in.end() {
		f.crowd.leave(f.now, k, n)
		for range n {
			f.promises.record(in, f.now)
		}
	}
}

// Vanish ends the process as if with its clients' network: none of them comes back.
func (in *Instance) Vanish() {
	for k, n := range in.end() {
		in.fleet.crowd.lose(k, n)
	}
}

// end ends the process and says what it held.
func (in *Instance) end() [times]int {
	f := in.fleet
	if in.dead {
		return [times]int{}
	}
	in.notices.void(in)
	held := in.held
	f.held[in.side] -= in.total
	f.promises.lost += in.total
	in.dead, in.left, in.held, in.total = true, 0, [times]int{}, 0
	in.peers = nil
	f.promises.disturb(f.now)
	f.detect(func() {
		if in.dead {
			in.Health = discovery.Critical
		}
	})
	return held
}

// Start starts the process anew, empty; one that runs is ended with its clients' network.
func (in *Instance) Start() {
	in.Vanish()
	in.boots++
	in.dead, in.gone, in.ordered, in.ceiling = false, false, false, nil
	in.rollout, in.epoch, in.step, in.notices = "", 0, 0, notices{}
	in.accepted, in.evicted, in.returned, in.refused, in.flapped = 0, 0, 0, 0, 0
	in.fleet.detect(func() { in.Health = discovery.Passing })
}

// Update ends the process and starts another release in its place, under the same id.
func (in *Instance) Update(version string) {
	in.Start()
	in.SetVersion(version)
}

// SetVersion has it be registered with that version.
func (in *Instance) SetVersion(version string) { in.registered(func() { in.Version = version }) }

// boot names the process; empty where the instances say none.
func (in *Instance) boot() string {
	if in.fleet.conf.Nameless {
		return ""
	}
	return fmt.Sprintf("%s %d", in.name, in.boots)
}

// Deregister takes the instance out of discovery, and Register puts it back.
func (in *Instance) Deregister() { in.registered(func() { in.gone = true }) }
func (in *Instance) Register()   { in.registered(func() { in.gone = false }) }

// SetHealth has discovery say how it is.
func (in *Instance) SetHealth(h discovery.Health) { in.registered(func() { in.Health = h }) }

// SetCapacity has it be registered with that capacity; 0 is none.
func (in *Instance) SetCapacity(capacity int) { in.registered(func() { in.Capacity = capacity }) }

// DropEndpoint has it be registered without a drain endpoint.
func (in *Instance) DropEndpoint() { in.registered(func() { in.Drain = "" }) }

// Recolour has the same process be registered as one of the colour. It goes on as what
// it was, and what it holds counts there.
func (in *Instance) Recolour(c discovery.Colour) {
	in.Colour = c
	in.fleet.lie()
}

// Move starts another process of the same id at another address; the former one
// still runs, and still holds what it held.
func (in *Instance) Move(addr netip.AddrPort) *Instance {
	in.name, in.gone = fmt.Sprintf("%s@%s/%s", in.ID, in.Addr, in.Colour), true
	next := &Instance{side: in.side, Instance: in.Instance}
	next.Addr = addr
	return in.fleet.start(next)
}

func (in *Instance) registered(change func()) {
	change()
	in.fleet.rediscover()
}

// Admit has n new clients connect to the instance, past every proxy.
func (in *Instance) Admit(n int) {
	in.hold(n, direct)
	in.fleet.crowd.come(n)
}

// End ends n connections by themselves; their clients do not come back.
func (in *Instance) End(n int) {
	for range min(n, in.untold()) {
		in.fleet.crowd.lose(in.release(), 1)
	}
}
