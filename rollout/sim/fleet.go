package sim

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
)

// Fleet is all processes there ever were, and how discovery shows them.
type Fleet struct {
	*ground
	crowd    *Crowd
	edge     *Edge
	promises *promises

	instances []*Instance
	byAddr    map[netip.AddrPort]*Instance
	colours   [2][]*Instance  // sorted by name
	held      [2]int          // connections by colour
	shown     discovery.Fleet // by discovery
	twins     []twin
	liars     []*Instance // registered as another colour than they are, or also as that
	closing   []*Instance // those with closes to come
	dues      []uint64    // scratch of advance

	slow time.Duration // how long connecting to green takes
	sulk float64       // the share of new connections that do not get through to green
}

// Add starts one more instance of a colour.
func (f *Fleet) Add(c discovery.Colour) *Instance {
	n := 1
	for _, in := range f.instances {
		if in.Colour == c {
			n++
		}
	}
	return f.Join(c, n)
}

// Join starts the n-th instance of a colour.
func (f *Fleet) Join(c discovery.Colour, n int) *Instance {
	i := n - 1
	in := &Instance{side: side(c), Instance: discovery.Instance{
		ID: discovery.InstanceID(fmt.Sprintf("chat-%s%04d", c[:1], n)), Colour: c, Health: discovery.Passing,
		Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(1 + side(c)), byte(i >> 8), byte(i)}), 9000),
	}}
	if c == discovery.Green {
		in.Capacity, in.Limit = f.conf.GreenCapacity, f.conf.Limit
	}
	return f.start(in)
}

// start starts a process.
func (f *Fleet) start(in *Instance) *Instance {
	in.fleet, in.index, in.name, in.Drain = f, len(f.instances), string(in.ID), "http://"+in.Addr.String()
	in.latency = f.conf.Latency + f.conf.Jitter*time.Duration(in.index%8)/7
	for _, other := range f.instances {
		if other.side == in.side {
			in.nth++
		}
	}
	f.instances = append(f.instances, in)
	f.byAddr[in.Addr] = in
	f.regroup()
	return in
}

// populate has the live side hold what it is to hold.
func (f *Fleet) populate() {
	all := f.colours[side(f.conf.Live)]
	left := f.conf.Connections
	for i, in := range all {
		rest := len(all) - i
		n := (left + rest - 1) / rest
		if f.conf.Uneven && rest > 1 { // half more or less
			n = n/2 + f.rng.IntN(n+1)
		}
		left -= n
		in.hold(n, direct)
	}
}

// Instance is the instance of that name.
func (f *Fleet) Instance(name string) *Instance {
	for _, in := range f.instances {
		if in.name == name {
			return in
		}
	}
	return nil
}

// Instances lists all processes there ever were, by name.
func (f *Fleet) Instances() []*Instance {
	all := slices.Clone(f.instances)
	slices.SortFunc(all, byName)
	return all
}

// Colour lists those of a colour.
func (f *Fleet) Colour(c discovery.Colour) []*Instance { return slices.Clone(f.colours[side(c)]) }

// Held is how many connections a colour has.
func (f *Fleet) Held(c discovery.Colour) int { return f.held[side(c)] }

func byName(a, b *Instance) int { return cmp.Compare(a.name, b.name) }

// regroup sorts the instances into their colours.
func (f *Fleet) regroup() {
	f.colours = [2][]*Instance{}
	for _, in := range f.Instances() {
		f.colours[in.side] = append(f.colours[in.side], in)
	}
	f.edge.watch()
	f.rediscover()
}

// detect is discovery noticing something.
func (f *Fleet) detect(what func()) {
	noticed := func() {
		what()
		f.rediscover()
	}
	if f.conf.Detect == 0 {
		noticed()
		return
	}
	f.after(f.conf.Detect, noticed)
}

// rediscover has discovery publish what there is now.
func (f *Fleet) rediscover() {
	f.shown.Instances = nil
	for _, in := range f.instances {
		if !in.gone && f.shown.Unread == "" {
			f.shown.Instances = append(f.shown.Instances, in.Instance)
		}
	}
	for _, t := range f.twins {
		if !t.of.dead && f.shown.Unread == "" {
			in := t.of.Instance
			in.ID, in.Colour, in.Health = t.id, t.colour, discovery.Passing
			f.shown.Instances = append(f.shown.Instances, in)
		}
	}
	slices.SortFunc(f.shown.Instances, func(a, b discovery.Instance) int { return cmp.Compare(a.ID, b.ID) })
	f.shown.Twins = discovery.FindTwins(f.shown.Instances)
	f.promises.roomOf = ""
	f.ring()
}

// nextClose is when the next connection is to be closed.
func (f *Fleet) nextClose() time.Duration {
	next := never
	for _, in := range f.closing {
		if in.left > 0 {
			next = min(next, in.next)
		}
	}
	return max(next, f.now)
}

// advance carries out, in order, all closes that are due until then.
func (f *Fleet) advance(until time.Duration) {
	f.dues = f.dues[:0]
	f.closing = slices.DeleteFunc(f.closing, func(in *Instance) bool {
		for in.left > 0 && in.next <= until {
			f.dues = append(f.dues, uint64(in.next)<<16|uint64(in.index))
			in.next += in.distance
			in.left--
		}
		in.listed = in.left > 0
		return !in.listed
	})
	slices.Sort(f.dues)
	for _, d := range f.dues {
		in := f.instances[d&0xffff]
		in.level--
		switch {
		case in.dead || in.untold() <= in.level:
		case in.notice > 0:
			f.ask(in, time.Duration(d>>16))
		default:
			f.evict(in, time.Duration(d>>16))
		}
	}
}

// evict closes one connection.
func (f *Fleet) evict(in *Instance, at time.Duration) {
	was := in.release()
	in.evicted++
	f.crowd.leave(at, min(was+1, times-1), 1)
	f.promises.closed(in, at)
}

// room is what the open instances of a colour may hold in all, with so many
// ten-thousandths of their capacity; known is false if one of them declares none.
func (f *Fleet) room(c discovery.Colour, headroom int) (total int, known bool) {
	for _, in := range f.colours[side(c)] {
		if !in.roomy() {
			continue
		}
		if in.Capacity == 0 {
			return 0, false
		}
		total += in.Capacity * headroom / 10_000
	}
	return total, total > 0
}

// roomy reports whether the instance counts in its colour's room.
func (in *Instance) roomy() bool { return !in.dead && !in.gone && in.Health.Serves() }

// Discover has discovery fail with err, or say what seems wrong with the fleet that it
// reads; both are empty when nothing is.
func (f *Fleet) Discover(err, suspect string) {
	f.shown.Err, f.shown.Suspect = err, suspect
	f.ring()
}

// twin is a second registration of a process.
type twin struct {
	id     discovery.InstanceID
	colour discovery.Colour
	of     *Instance
}

// Twin registers the process of an instance once more, as another instance of a colour;
// Untwin takes such a registration away.
func (f *Fleet) Twin(of *Instance, id discovery.InstanceID, c discovery.Colour) {
	f.twins = append(f.twins, twin{id, c, of})
	of.twinned = true
	f.lie()
}

func (f *Fleet) Untwin(id discovery.InstanceID) {
	f.twins = slices.DeleteFunc(f.twins, func(t twin) bool { return t.id == id })
	f.lie()
}

// lie has discovery publish registrations that say something else than what is.
func (f *Fleet) lie() {
	f.liars = nil
	for _, in := range f.instances {
		lies := side(in.Colour) != in.side || slices.ContainsFunc(f.twins, func(t twin) bool { return t.of == in && side(t.colour) != in.side })
		if lies {
			f.liars = append(f.liars, in)
		}
	}
	f.rediscover()
}

// Unread has discovery never have been read since rolloutd started, for a reason;
// empty has it read.
func (f *Fleet) Unread(why string) {
	f.shown.Unread = why
	f.rediscover()
}
