package sim

import (
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/drain"
)

// times is how many closes of one client are told apart; more count as the last.
const times = 6

// Instance is one process, with the drain contract as drain.Gate keeps it.
type Instance struct {
	// The registration; it is changed by methods only.
	discovery.Instance
	// Deaf: its drain endpoint does not answer.
	Deaf bool
	// Full: it refuses every new connection.
	Full bool
	// Stubborn: a hook cannot end it.
	Stubborn bool
	// Limit is the most connections that it admits; 0 is no limit.
	Limit int
	// Handshake is how long its handshakes take, in ms; nil is not told.
	Handshake *int

	w           *World
	name        string
	index, side int
	dead        bool // the process does not exist
	gone        bool // deregistered

	held  [times]int // connections by how often the funnel closed their clients
	total int

	accepted, evicted, returned, refused uint64
	entered, rejected                    uint64 // as the proxies count

	rollout        string
	epoch, step    uint64
	ordered        bool
	ceiling        *int
	pick           drain.Pick
	next, distance time.Duration // the schedule of the standing order
	left, level    int
	listed         bool // in World.closing

	openAt  int           // how many proxies send it new connections
	latency time.Duration // of one request, one way
}

// Status is what its drain endpoint says.
func (in *Instance) Status() drain.Status {
	s := drain.Status{
		State: drain.Serving, Active: in.total, Accepted: in.accepted, Evicted: in.evicted, Refused: in.refused,
		HandshakeMS: in.Handshake, Limit: in.Limit, Ceiling: in.ceiling, Rollout: in.rollout, Epoch: in.epoch, Step: in.step,
	}
	if !in.w.conf.Unclear {
		s.Returned = new(in.returned)
	}
	if in.ordered {
		s.State = drain.Draining
		if in.total == 0 {
			s.State = drain.Drained
		}
	}
	return s
}

// Name is its id or, when another process has that now, where it was too.
func (in *Instance) Name() string { return in.name }

// Holds is how many connections it has.
func (in *Instance) Holds() int { return in.total }

// Draining reports whether it was ordered to refuse new connections.
func (in *Instance) Draining() bool { return in.ordered }

// Pick is which connections it was last ordered to let go first.
func (in *Instance) Pick() drain.Pick { return in.pick }

// Dead reports whether its process does not exist, Gone whether discovery does not
// know it.
func (in *Instance) Dead() bool { return in.dead }
func (in *Instance) Gone() bool { return in.gone }

// hear is an instance being told.
func (w *World) hear(in *Instance, told rollout.Instruction) {
	switch o := told.Drain; {
	case o == nil && told.Serve.Epoch < in.epoch:
		w.promises.fault(w.now, "%s was told to serve by epoch %d after %d", in.ID, told.Serve.Epoch, in.epoch)
	case o == nil:
		in.rollout, in.epoch, in.step, in.ordered, in.ceiling = told.Serve.Rollout, told.Serve.Epoch, 0, false, nil
		in.left = 0
	case o.Epoch < in.epoch, o.Epoch == in.epoch && o.Step < in.step, !in.ordered && o.Epoch == in.epoch:
		w.promises.fault(w.now, "%s got the order %d.%d after %d.%d", in.ID, o.Epoch, o.Step, in.epoch, in.step)
	case in.ordered && o.Epoch == in.epoch && o.Step == in.step:
	default:
		if err := o.Check(); err != nil {
			w.promises.fault(w.now, "%s got a bad order: %v", in.ID, err)
			return
		}
		in.rollout, in.epoch, in.step, in.ordered, in.ceiling, in.pick = o.Rollout, o.Epoch, o.Step, true, o.Ceiling, o.Pick
		in.left, in.level = 0, in.total
		if o.Ceiling == nil || in.total <= *o.Ceiling {
			return
		}
		in.left = in.total - *o.Ceiling
		in.next = w.now + time.Duration(o.StartMS)*time.Millisecond
		in.distance = time.Duration(o.OverMS) * time.Millisecond / time.Duration(in.left)
		if !in.listed {
			in.listed = true
			w.closing = append(w.closing, in)
		}
	}
}

// nextClose is when the next connection is to be closed.
func (w *World) nextClose() time.Duration {
	next := never
	for _, in := range w.closing {
		if in.left > 0 {
			next = min(next, in.next)
		}
	}
	return max(next, w.now)
}

// advance carries out, in order, all closes that are due until then.
func (w *World) advance(until time.Duration) {
	w.dues = w.dues[:0]
	w.closing = slices.DeleteFunc(w.closing, func(in *Instance) bool {
		for in.left > 0 && in.next <= until {
			w.dues = append(w.dues, uint64(in.next)<<16|uint64(in.index))
			in.next += in.distance
			in.left--
		}
		in.listed = in.left > 0
		return !in.listed
	})
	slices.Sort(w.dues)
	for _, d := range w.dues {
		in := w.instances[d&0xffff]
		in.level--
		if !in.dead && in.total > in.level {
			w.evict(in, time.Duration(d>>16))
		}
	}
}

// evict closes one connection.
func (w *World) evict(in *Instance, at time.Duration) {
	was := w.release(in)
	in.evicted++
	now := min(was+1, times-1)
	w.clients.most = max(w.clients.most, now)
	w.leave(at, now, 1)
	w.promises.closed(w, in, at)
}

// release takes one of the connections away, whichever, and says how often its
// client was closed before.
func (w *World) release(in *Instance) int {
	k := w.draw(in)
	in.held[k]--
	in.total--
	w.clients.held[in.side]--
	return k
}

// draw draws one of the connections.
func (w *World) draw(in *Instance) int {
	for k := range 2 {
		if in.held[k] == in.total {
			return k
		}
	}
	nth := w.rng.IntN(in.total)
	for k, n := range in.held {
		if nth < n {
			return k
		}
		nth -= n
	}
	return 0
}

// admits is a new connection at the instance.
func (w *World) admits(in *Instance) bool {
	switch {
	case in.dead, in.side == 1 && w.outside.sulk > 0 && w.rng.Float64() < w.outside.sulk:
		in.rejected++
		return false
	case in.ordered, in.Full, in.Limit > 0 && in.total >= in.Limit:
		in.rejected++
		in.refused++
		return false
	}
	w.hold(in, 1)
	in.entered++
	return true
}

// hold has the instance hold n connections more, of clients that were never closed.
func (w *World) hold(in *Instance, n int) {
	in.held[0] += n
	in.total += n
	in.accepted += uint64(n)
	w.clients.held[in.side] += n
}
