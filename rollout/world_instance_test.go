package rollout

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/drain"
)

func (in *instance) answer(w *world) drain.Status {
	s := in.status
	if !w.unclear {
		returned := in.returned
		s.Returned = &returned
	}
	if s.State == drain.Draining && s.Active == 0 {
		s.State = drain.Drained
	}
	return s
}

// silence is how the drain client says that a dead or deaf instance gave no answer.
func (in *instance) silence() error {
	if in.dead {
		return fmt.Errorf("drain %s: dial tcp %s: connect: connection refused", in.Drain, in.Addr)
	}
	return fmt.Errorf("drain %s: no answer within 2s", in.Drain)
}

// arrive is the instance's side of the contract.
func (w *world) arrive(in *instance, told Assignment, news bool) {
	if in.dead || in.deaf || !news {
		return
	}
	switch o := told.Instruction.Drain; {
	case o == nil:
		in.status.State, in.status.Ceiling, in.status.Epoch = drain.Serving, nil, told.Instruction.Serve.Epoch
		in.running++
	case o.Epoch < in.status.Epoch || o.Epoch == in.status.Epoch && o.Step < in.status.Step:
		w.t.Fatalf("%s got the order %d.%d after %d.%d", in.ID, o.Epoch, o.Step, in.status.Epoch, in.status.Step)
	case o.Epoch == in.status.Epoch && o.Step == in.status.Step && in.status.State != drain.Serving:
	default:
		in.status.State, in.status.Rollout, in.status.Epoch, in.status.Step = drain.Draining, o.Rollout, o.Epoch, o.Step
		in.status.Ceiling, in.lastOrder = o.Ceiling, *o
		in.running++
		if o.Ceiling != nil && in.status.Active > *o.Ceiling {
			n := in.status.Active - *o.Ceiling
			for k := range n {
				at := time.Duration(o.StartMS)*time.Millisecond + time.Duration(k)*time.Duration(o.OverMS)*time.Millisecond/time.Duration(n)
				run := in.running
				w.at(at, func() {
					if in.running == run && !in.dead && in.status.Active > *o.Ceiling {
						w.evict(in)
					}
				})
			}
		}
	}
}

// evict closes one connection; its client comes back where the proxies send it.
func (w *world) evict(in *instance) {
	in.status.Active--
	in.status.Evicted++
	w.evictions = append(w.evictions, eviction{w.now, in.Colour})
	for node, p := range w.proxies {
		if p.connected && p.open[in.ID] {
			w.t.Fatalf("%s closed a connection while proxy %s still sends it new ones", in.ID, node)
		}
	}
	w.outstanding++
	w.far = max(w.far, w.outstanding)
	to := favoured(w.state)
	// What cannot be stored cannot stop the running step.
	if room, known := w.room(to); known && w.organic == 0 && !w.storeDown && room < w.outstanding {
		w.t.Fatalf("%s closed a connection although %s has room for %d and %d are on their way", in.ID, to, room, w.outstanding)
	}
	w.at(w.comeBack(), func() { w.arriveClient(favoured(w.state), true) })
}

// arriveClient puts a client on the colour's next instance that takes it.
func (w *world) arriveClient(c discovery.Colour, returning bool) {
	if w.byColour[c] == nil {
		for _, in := range w.instances {
			w.byColour[in.Colour] = append(w.byColour[in.Colour], in)
		}
		for _, all := range w.byColour {
			slices.SortFunc(all, func(a, b *instance) int { return strings.Compare(string(a.ID), string(b.ID)) })
		}
	}
	all := w.byColour[c]
	for range all {
		w.turn++
		in := all[w.turn%len(all)]
		if slices.ContainsFunc(w.brim, func(id discovery.InstanceID) bool { return id == in.ID }) {
			continue // no proxy sends it any
		}
		if in.full {
			in.status.Refused++
			continue
		}
		if !in.dead && !in.gone && in.Health.Serves() && in.status.State == drain.Serving {
			in.status.Active++
			in.status.Accepted++
			if returning {
				in.returned++
				w.outstanding--
			} else {
				w.organic++
			}
			return
		}
	}
	w.refused++
	w.at(time.Second, func() { w.arriveClient(favoured(w.state), returning) })
}

// room is what a colour has room for, if all of its instances declare it.
func (w *world) room(c discovery.Colour) (int, bool) {
	total := 0
	for _, in := range w.instances {
		if in.Colour == c && in.Capacity == 0 {
			return 0, false
		}
		if in.Colour == c && in.well() && in.Health.Serves() {
			total += in.Capacity - in.status.Active
		}
	}
	return total, true
}
