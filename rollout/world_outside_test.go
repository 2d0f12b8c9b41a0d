package rollout

import (
	"time"

	"github.com/sluice-proxy/sluice/discovery"
)

// report is what the proxies say of every instance, at once and exactly.
func (w *world) report(s *Seen) {
	s.Loads, s.Witnesses = map[Place]Load{}, map[discovery.Colour]Witness{}
	for _, in := range w.instances {
		held := in.status.Active
		if in.dead {
			held = 0
		}
		s.Loads[Place{in.Colour, in.Addr}] = Load{Held: held, Admissions: Admissions{Accepted: in.status.Accepted}, At: w.now}
		seen := s.Witnesses[in.Colour]
		s.Witnesses[in.Colour] = Witness{Active: seen.Active + held, At: w.now}
	}
}

// askGates has the gates answer a moment later.
func (w *world) askGates() {
	at := w.now
	w.at(50*time.Millisecond, func() {
		next := map[string]Reading{}
		for name, r := range w.gates {
			answer := *r
			answer.At = at
			next[name] = answer
		}
		w.asked, w.dirty = next, true
	})
}

// callHooks ends what the hooks are to end, two seconds later.
func (w *world) callHooks(orders map[discovery.InstanceID]HookOrder) {
	for key, o := range orders {
		if run := w.hooks[key]; run.Rollout == o.Rollout && run.Attempt == o.Attempt {
			continue
		}
		w.hooks[key] = HookRun{Rollout: o.Rollout, Attempt: o.Attempt}
		w.at(2*time.Second, func() {
			run := HookRun{Rollout: o.Rollout, Attempt: o.Attempt, Done: true, At: w.now}
			if in := w.instances[key]; in.stubborn {
				run.Err = "exit status 1"
			} else {
				w.crash(in)
				in.gone = true
			}
			w.hooks[key], w.dirty = run, true
		})
	}
}

// crash ends an instance with all of its connections; the clients come back.
func (w *world) crash(in *instance) {
	n := in.status.Active
	in.dead, in.Health = true, discovery.Critical
	if in.Drain == "" {
		in.status.Active = 0
	}
	for range n {
		w.evictions = append(w.evictions, eviction{w.now, in.Colour})
		w.outstanding++
		w.at(w.comeBack(), func() { w.arriveClient(favoured(w.state), true) })
	}
}
