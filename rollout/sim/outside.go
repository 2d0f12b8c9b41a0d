package sim

import (
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
)

// outside is what stands round the loop: the store, gates, hooks, and what else can
// go wrong.
type outside struct {
	storeDown bool
	retired   bool                       // the service is not in the configuration
	reported  bool                       // an exact world's proxies report loads
	gates     map[string]rollout.Reading // what they would answer, by name
	asking    bool                       // the gates are being asked
	slow      time.Duration              // how long connecting to green takes
	sulk      float64                    // the share of new connections that do not get through to green
}

// Gate has a gate answer like that from now on.
func (w *World) Gate(name string, answer rollout.Reading) {
	if w.outside.gates == nil {
		w.outside.gates = map[string]rollout.Reading{}
	}
	w.outside.gates[name] = answer
}

// askGates has the policy's gates answered a moment later.
func (w *World) askGates() {
	r := w.state.Rollout
	if w.outside.asking || r == nil {
		return
	}
	w.outside.asking = true
	at, life := w.Now(), w.seen.Watching
	w.after(50*time.Millisecond, func() {
		if w.seen.Watching != life {
			return // whoever asked does not live any more
		}
		all := map[string]rollout.Reading{}
		for _, g := range r.Policy.Gates {
			if answer, ok := w.outside.gates[g.Name]; ok {
				answer.At = at
				all[g.Name] = answer
			}
		}
		w.seen.Gates, w.outside.asking, w.dirty = all, false, true
	})
}

// callHooks ends what the hooks are to end, two seconds later.
func (w *World) callHooks(orders map[discovery.InstanceID]rollout.HookOrder) {
	runs := w.seen.Hooks
	for key, o := range orders {
		if run := runs[key]; run.Rollout == o.Rollout && run.Attempt == o.Attempt {
			continue
		}
		runs[key] = rollout.HookRun{Rollout: o.Rollout, Attempt: o.Attempt}
		w.after(2*time.Second, func() {
			run := rollout.HookRun{Rollout: o.Rollout, Attempt: o.Attempt, Done: true, At: w.Now()}
			if in := w.byAddr[o.Addr]; in.Stubborn {
				run.Err = "exit status 1"
			} else {
				in.Crash()
				in.Deregister()
			}
			runs[key], w.dirty = run, true
		})
	}
}

// Store has the store take what is decided, or not.
func (w *World) Store(up bool) { w.outside.storeDown, w.dirty = !up, true }

// StoreIsUp reports whether it takes it.
func (w *World) StoreIsUp() bool { return !w.outside.storeDown }

// Retire takes the service out of the configuration, or puts it back.
func (w *World) Retire(retired bool) { w.outside.retired, w.dirty = retired, true }

// Discover has discovery fail with err, or say what seems wrong with the fleet that it
// reads; both are empty when nothing is.
func (w *World) Discover(err, suspect string) {
	w.seen.Fleet.Err, w.seen.Fleet.Suspect, w.dirty = err, suspect, true
}

// Guard holds back what the proxies are told, for a reason; empty tells them.
func (w *World) Guard(why string) { w.seen.Unpublished, w.dirty = why, true }

// ReportLoads has the proxies of an exact world report loads, at once and exactly.
func (w *World) ReportLoads() { w.outside.reported = true }

// HideReturns has the application not tell returning clients from new ones any more.
func (w *World) HideReturns() { w.conf.Unclear = true }
