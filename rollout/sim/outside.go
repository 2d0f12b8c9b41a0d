package sim

import (
	"maps"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
)

// Outside is what stands round the loop: the store, the configuration and the gates.
type Outside struct {
	*ground
	storeDown bool
	retired   bool                        // the service is not in the configuration
	gates     map[string]observed.Reading // what they would answer, by name
}

// Gate has a gate answer like that from now on.
func (o *Outside) Gate(name string, answer observed.Reading) {
	if o.gates == nil {
		o.gates = map[string]observed.Reading{}
	}
	o.gates[name] = answer
}

// Store has the store take what is decided, or not.
func (o *Outside) Store(up bool) {
	o.storeDown = !up
	o.ring()
}

// StoreIsUp reports whether it takes it.
func (o *Outside) StoreIsUp() bool { return !o.storeDown }

// Retire takes the service out of the configuration, or puts it back.
func (o *Outside) Retire(retired bool) {
	o.retired = retired
	o.ring()
}

// askGates has the policy's gates of the moment answered a little later.
func (l *loop) askGates(moment policy.Moment) {
	r := l.state.Rollout
	if l.asking || r == nil {
		return
	}
	l.asking = true
	at, life := l.Now(), l.seen.Watching
	l.after(50*time.Millisecond, func() {
		if l.seen.Watching != life {
			return // the rolloutd that asked does not live any more
		}
		all := maps.Clone(l.seen.Gates)
		if all == nil {
			all = map[string]observed.Reading{}
		}
		for _, g := range r.Policy.Gates {
			if answer, ok := l.outside.gates[g.Name]; ok && g.Asked(moment) {
				answer.At = at
				all[g.Name] = answer
			}
		}
		l.seen.Gates, l.asking = all, false
		l.ring()
	})
}

// callHooks ends what the hooks are to end, two seconds later.
func (l *loop) callHooks(orders map[discovery.InstanceID]desired.HookOrder) {
	runs := l.seen.Hooks
	for key, o := range orders {
		if run := runs[key]; run.Rollout == o.Rollout && run.Attempt == o.Attempt {
			continue
		}
		runs[key] = observed.HookRun{Rollout: o.Rollout, Attempt: o.Attempt}
		l.after(2*time.Second, func() {
			run := observed.HookRun{Rollout: o.Rollout, Attempt: o.Attempt, Done: true, At: l.Now()}
			if in := l.fleet.byAddr[o.Addr]; in.Stubborn {
				run.Err = "exit status 1"
			} else {
				in.Crash()
				in.Deregister()
			}
			runs[key] = run
			l.ring()
		})
	}
}
