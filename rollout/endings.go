package rollout

import (
	"cmp"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
)

const (
	// hookAgain is how long after a hook failed, or after it succeeded without
	// effect, it is called again.
	hookAgain = 30 * time.Second
	// loadOld is how old a load report may be to be acted on, and witnessOld how
	// old what the proxies' counters say.
	loadOld    = 10 * time.Second
	witnessOld = 15 * time.Second
)

// hookOrders is for which members the hook has to be called.
func (d *decider) hookOrders() map[discovery.InstanceID]HookOrder {
	r := d.s.Rollout
	if r == nil || r.Policy.Hook == nil {
		return nil
	}
	out := map[discovery.InstanceID]HookOrder{}
	for key, m := range d.s.Members {
		if m.Hooked > 0 && r.old(m) {
			out[key] = HookOrder{
				Service: d.s.Service, Instance: m.ID, Colour: m.Colour, Addr: m.Addr,
				Rollout: r.ID, Attempt: m.Hooked, Hook: *r.Policy.Hook,
			}
		}
	}
	return out
}

// hooked reports whether the hook has ended the member without an error.
func (d *decider) hooked(key discovery.InstanceID, m Member) bool {
	run, ok := d.run(key, m)
	return ok && run.Done && run.Err == ""
}

// run is the call that the member's newest order asked for.
func (d *decider) run(key discovery.InstanceID, m Member) (HookRun, bool) {
	run, ok := d.seen.Hooks[key]
	return run, ok && m.Hooked > 0 && run.Rollout == d.s.Rollout.ID && run.Attempt == m.Hooked
}

// callHooks has the hook end instances without a drain endpoint, the smallest
// first, as many as may be closed at once; false when there is no hook or nobody
// to call it for. An instance goes as a whole, so it is a step of its own.
func (d *decider) callHooks(o oldSide) (Reason, bool) {
	r := d.s.Rollout
	if r.Policy.Hook == nil || len(o.noEndpoint) == 0 || len(o.unreachable)+len(o.late) > 0 {
		return Reason{}, false
	}
	var ready []discovery.InstanceID
	for _, key := range o.noEndpoint {
		m := d.s.Members[key]
		run, known := d.run(key, m)
		switch {
		case m.Hooked == 0:
			ready = append(ready, key)
		case !known || !run.Done:
			return d.wait(reason(HookRunning, "waiting: the hook ends %s since %s", key, clock(m.HookedAt))), true
		case run.Err != "" && d.now.Before(run.At.Add(hookAgain)):
			return d.wait(reason(HookFailed, "waiting: the hook did not end %s (%s); it is called again at %s", key, run.Err, clock(run.At.Add(hookAgain)))), true
		case d.now.Before(run.At.Add(hookAgain)):
			return d.wait(reason(HookRunning, "waiting: the hook for %s is through; %s is not empty or deregistered yet", key, key)), true
		default:
			ready = append(ready, key)
		}
	}
	return d.callHooksFor(ready), true
}

func (d *decider) callHooksFor(ready []discovery.InstanceID) Reason {
	r := d.s.Rollout
	if why, ok := d.gatesOpen(r.StepAt.Add(-gatesAhead)); !ok {
		return why
	}
	for key, m := range d.s.Members {
		// What a hook closed, it closed before it ended.
		if run, ok := d.run(key, m); ok && run.Done && d.now.Before(run.At.Add(r.Policy.Funnel.Every.D())) {
			d.wakeBy(run.At.Add(r.Policy.Funnel.Every.D()))
			return d.letting(IsDraining)
		}
	}
	held := map[discovery.InstanceID]int{}
	for _, key := range ready {
		load, ok := d.load(d.s.Members[key])
		if !ok || d.now.Sub(load.At) > loadOld {
			return d.wait(reason(Unreported, "waiting: the proxies do not report what %s holds", key))
		}
		held[key] = load.Held
	}
	slices.SortStableFunc(ready, func(a, b discovery.InstanceID) int { return cmp.Compare(held[a], held[b]) })
	d.track(true)
	pace := d.judge()
	given, why, ok := d.allowance(pace)
	if !ok {
		return why
	}
	n := given.Close
	if first := ready[0]; held[first] > n {
		if limit := d.limit(); held[first] > limit {
			return d.wait(reason(HookTooLarge, "waiting: %s holds %d connections, which its hook ends all at once, and a step may close %d; raise the pace, or stop it yourself", first, held[first], limit))
		}
		return d.wait(reason(WindowFull, "waiting: %s holds %d connections, which its hook ends all at once, and %d may go now", first, held[first], n))
	}
	d.adopt(pace)
	r = d.s.Rollout
	for _, key := range ready {
		if held[key] > n {
			break
		}
		n -= held[key]
		m := d.s.Members[key]
		m.Hooked++
		m.HookedAt = d.now
		d.put(key, m)
		if m.Hooked == 1 {
			r.Evicted += uint64(held[key])
		}
		r.note(d.now, "the hook ends "+string(key)+", which holds "+counted(held[key], "connection", "connections"))
	}
	r.Cap, r.Given = d.limit(), Allowance{}
	r.StepAt = d.now.Add(r.Policy.Funnel.Every.D())
	d.wakeBy(r.StepAt)
	return reason(HookRunning, "waiting: the hook ends %s", ready[0])
}
