package sim

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
)

// Add starts one more instance of a colour.
func (w *World) Add(c discovery.Colour) *Instance {
	n := 1
	for _, in := range w.instances {
		if in.Colour == c {
			n++
		}
	}
	return w.Join(c, n)
}

// Join starts the n-th instance of a colour.
func (w *World) Join(c discovery.Colour, n int) *Instance {
	i := n - 1
	in := &Instance{side: side(c), Instance: discovery.Instance{
		ID: discovery.InstanceID(fmt.Sprintf("chat-%s%04d", c[:1], n)), Colour: c, Health: discovery.Passing,
		Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(1 + side(c)), byte(i >> 8), byte(i)}), 9000),
	}}
	if c == discovery.Green {
		in.Capacity, in.Limit = w.conf.GreenCapacity, w.conf.Limit
	}
	return w.start(in)
}

// start starts a process.
func (w *World) start(in *Instance) *Instance {
	in.w, in.index, in.name, in.Drain = w, len(w.instances), string(in.ID), "http://"+in.Addr.String()
	in.latency = w.conf.Latency + w.conf.Jitter*time.Duration(in.index%8)/7
	w.instances = append(w.instances, in)
	w.byAddr[in.Addr] = in
	w.regroup()
	return in
}

// Instance is the instance of that name.
func (w *World) Instance(name string) *Instance {
	for _, in := range w.instances {
		if in.name == name {
			return in
		}
	}
	return nil
}

// Instances lists all processes there ever were, by name.
func (w *World) Instances() []*Instance {
	all := slices.Clone(w.instances)
	slices.SortFunc(all, byName)
	return all
}

// Colour lists those of a colour.
func (w *World) Colour(c discovery.Colour) []*Instance { return slices.Clone(w.colours[side(c)]) }

// Held is how many connections a colour has.
func (w *World) Held(c discovery.Colour) int { return w.clients.held[side(c)] }

func byName(a, b *Instance) int { return cmp.Compare(a.name, b.name) }

// regroup sorts the instances into their colours.
func (w *World) regroup() {
	w.colours = [2][]*Instance{}
	for _, in := range w.Instances() {
		w.colours[in.side] = append(w.colours[in.side], in)
	}
	w.watch()
	w.rediscover()
}

// Crash ends the process; its clients notice at once and come back. Discovery
// notices later.
func (in *Instance) Crash() {
	w := in.w
	for k, n := range in.end() {
		w.leave(w.now, k, n)
		for range n {
			w.promises.record(in, w.now)
		}
	}
}

// Vanish ends the process as if with its clients' network: none of them comes back.
func (in *Instance) Vanish() {
	for k, n := range in.end() {
		in.w.clients.never[k] += n
	}
}

// end ends the process and says what it held.
func (in *Instance) end() [times]int {
	w, held := in.w, in.held
	if in.dead {
		return [times]int{}
	}
	w.clients.held[in.side] -= in.total
	w.promises.lost += in.total
	in.dead, in.left, in.held, in.total = true, 0, [times]int{}, 0
	w.promises.disturb(w.now)
	w.detect(func() {
		if in.dead {
			in.Health = discovery.Critical
		}
	})
	return held
}

// Start starts the process anew, empty.
func (in *Instance) Start() {
	in.Vanish()
	in.dead, in.gone, in.ordered, in.ceiling = false, false, false, nil
	in.rollout, in.epoch, in.step = "", 0, 0
	in.accepted, in.evicted, in.returned, in.refused = 0, 0, 0, 0
	in.w.detect(func() { in.Health = discovery.Passing })
}

// detect is discovery noticing something.
func (w *World) detect(what func()) {
	noticed := func() {
		what()
		w.rediscover()
	}
	if w.conf.Detect == 0 {
		noticed()
		return
	}
	w.after(w.conf.Detect, noticed)
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

// Recolour has the same process be registered as one of the colour.
func (in *Instance) Recolour(c discovery.Colour) {
	in.w.clients.held[in.side] -= in.total
	in.Colour, in.side = c, side(c)
	in.w.clients.held[in.side] += in.total
	in.w.regroup()
}

// Move starts another process of the same id at another address; the former one
// still runs, and still holds what it held.
func (in *Instance) Move(addr netip.AddrPort) *Instance {
	in.name, in.gone = fmt.Sprintf("%s@%s/%s", in.ID, in.Addr, in.Colour), true
	next := &Instance{side: in.side, Instance: in.Instance}
	next.Addr = addr
	return in.w.start(next)
}

func (in *Instance) registered(change func()) {
	change()
	in.w.rediscover()
}

// Admit has n new clients connect to the instance, past every proxy.
func (in *Instance) Admit(n int) {
	in.w.hold(in, n)
	in.w.clients.came += n
}

// End ends n connections by themselves; their clients do not come back.
func (in *Instance) End(n int) {
	for range min(n, in.total) {
		in.w.clients.never[in.w.release(in)]++
	}
}

// rediscover has discovery publish what there is now.
func (w *World) rediscover() {
	w.seen.Fleet.Instances = nil
	for _, in := range w.instances {
		if !in.gone {
			w.seen.Fleet.Instances = append(w.seen.Fleet.Instances, in.Instance)
		}
	}
	slices.SortFunc(w.seen.Fleet.Instances, func(a, b discovery.Instance) int { return cmp.Compare(a.ID, b.ID) })
	w.dirty, w.promises.roomOf = true, ""
}
