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

// instance is one process, with the drain contract as drain.Gate keeps it.
type instance struct {
	discovery.Instance
	index, side int
	dead        bool // the process does not exist
	gone        bool // deregistered

	held  [times]int // connections by how often the funnel closed their clients
	total int
	limit int

	accepted, evicted, returned uint64
	entered, refused            uint64 // as the proxies count
	rollout                     string
	epoch, step                 uint64
	ordered                     bool
	ceiling                     *int
	next, distance              time.Duration // the schedule of the standing order
	left, level                 int
	listed                      bool // in World.closing

	openAt int // how many proxies send it new connections

	latency time.Duration // of one request, one way
}

func (in *instance) status(unclear bool) drain.Status {
	s := drain.Status{
		State: drain.Serving, Active: in.total, Accepted: in.accepted, Evicted: in.evicted,
		Limit: in.limit, Ceiling: in.ceiling, Rollout: in.rollout, Epoch: in.epoch, Step: in.step,
	}
	if !unclear {
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

// hear is an instance being told.
func (w *World) hear(in *instance, told rollout.Instruction) {
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
		in.rollout, in.epoch, in.step, in.ordered, in.ceiling = o.Rollout, o.Epoch, o.Step, true, o.Ceiling
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

// advance carries out, in order, all closes that are due until then.
func (w *World) advance(until time.Duration) {
	w.dues = w.dues[:0]
	w.closing = slices.DeleteFunc(w.closing, func(in *instance) bool {
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
func (w *World) evict(in *instance, at time.Duration) {
	was := w.pick(in)
	in.held[was]--
	in.total--
	in.evicted++
	w.clients.held[in.side]--
	now := min(was+1, times-1)
	w.clients.most = max(w.clients.most, now)
	w.leave(at, now, 1)
	w.promises.closed(w, in, at)
}

// pick draws one of the connections, and says how often its client was closed.
func (w *World) pick(in *instance) int {
	if in.held[0] == in.total {
		return 0
	}
	if in.held[1] == in.total {
		return 1
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

// Kill ends the process; its clients notice at once. Discovery notices later.
func (w *World) Kill(in *instance) {
	if in.dead {
		return
	}
	in.dead, in.left = true, 0
	for k, n := range in.held {
		w.leave(w.now, k, n)
		w.clients.held[in.side] -= n
		w.promises.lost += n
	}
	in.held, in.total = [times]int{}, 0
	w.promises.disturb(w.now)
	w.after(w.conf.Detect, func() {
		if in.dead {
			in.Health = discovery.Critical
			w.rediscover()
		}
	})
}

// Restart starts the process anew, empty.
func (w *World) Restart(in *instance) {
	in.dead, in.ordered, in.ceiling = false, false, nil
	in.rollout, in.epoch, in.step = "", 0, 0
	in.accepted, in.evicted, in.returned = 0, 0, 0
	w.after(w.conf.Detect, func() {
		in.Health = discovery.Passing
		w.rediscover()
	})
}

// Deregister takes the instance out of discovery.
func (w *World) Deregister(in *instance) {
	in.gone = true
	w.rediscover()
}

// rediscover has discovery publish what there is now.
func (w *World) rediscover() {
	var all []discovery.Instance
	for _, in := range w.instances {
		if !in.gone {
			all = append(all, in.Instance)
		}
	}
	slices.SortFunc(all, func(a, b discovery.Instance) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	w.seen.Fleet.Instances = all
	w.dirty, w.promises.roomOf = true, ""
}
