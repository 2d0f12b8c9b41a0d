package sim

import (
	"maps"
	"sync"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
)

// Do carries out an operator's command; an error is a *rollout.Refusal.
func (w *World) Do(c rollout.Command) (rollout.Answer, error) {
	next, answer, err := rollout.Apply(c, w.Policy, w.state, w.see(), w.Now())
	if err != nil {
		return answer, err
	}
	if w.outside.storeDown {
		return rollout.Answer{}, rollout.RefuseUnstored("chat", rollout.Unstored(syscall.ENOSPC))
	}
	w.store(next)
	w.dirty = true
	return answer, nil
}

// Restart is rolloutd dying and starting again: only what is stored survives, and
// the proxies, which connect again at once.
func (w *World) Restart() {
	for _, t := range w.talks {
		t.over = true
	}
	w.talking, w.talks = map[discovery.InstanceID]*talk{}, nil
	w.outside.asking = false
	w.seen = rollout.Seen{
		Fleet: w.seen.Fleet, Unpublished: w.seen.Unpublished, Watching: w.Now(),
		Instances: map[discovery.InstanceID]rollout.Sighting{}, Hooks: map[discovery.InstanceID]rollout.HookRun{},
	}
	w.dirty = true
}

// Seen is what is seen now; the caller may change it.
func (w *World) Seen() rollout.Seen {
	s := w.see()
	s.Instances, s.Hooks = maps.Clone(s.Instances), maps.Clone(s.Hooks)
	s.Loads, s.Witnesses = maps.Clone(s.Loads), maps.Clone(s.Witnesses)
	return s
}

// see adds what the proxies say to what is kept up to date all the time.
func (w *World) see() rollout.Seen {
	if w.conf.Exact && w.outside.reported {
		w.report()
	}
	s := w.seen
	s.Proxies = make([]rollout.Proxy, len(w.proxies))
	for i, p := range w.proxies {
		s.Proxies[i] = p.seen(w.routes.version)
	}
	if w.outside.retired {
		s.Fleet = discovery.Fleet{}
	}
	return s
}

// look is the controller's look, without its goroutines.
func (w *World) look() {
	w.looked, w.dirty, w.counted = w.now, false, false
	for range 50 {
		w.promises.looks++
		// Both are pure: the decision is made beside the wish, and once more only when
		// the proxies have been told something.
		seen, version := w.see(), w.routes.version
		var d rollout.Decision
		var beside sync.WaitGroup
		beside.Go(func() { d = rollout.Step(w.state, seen, w.Now()) })
		w.wish = rollout.Wished(w.state, seen)
		beside.Wait()
		if w.publish(); w.routes.version != version {
			d = rollout.Step(w.state, w.see(), w.Now())
		}
		if d.Next.Retired != w.outside.retired {
			d.Next, d.Changed = d.Next.Retire(w.outside.retired), true
		}
		if d.Changed {
			if err := d.Next.Check(); err != nil {
				w.promises.fault(w.now, "a decision no state may have: %v", err)
			}
			if !w.outside.storeDown {
				w.because(d.Reason)
				w.store(d.Next)
				continue
			}
			d.Reason = rollout.Reason{Code: rollout.StoreFailing, Text: "waiting: " + rollout.Unstored(syscall.ENOSPC).Error()}
			d.Wake = w.Now().Add(time.Second)
		}
		w.because(d.Reason)
		w.rest(d)
		return
	}
	w.promises.fault(w.now, "Step never comes to rest: %s", w.reason.Text)
	w.due = never
}

// rest lets what was decided show.
func (w *World) rest(d rollout.Decision) {
	if w.Rests != nil {
		w.Rests()
	}
	if d.AskGates {
		w.askGates()
	}
	w.callHooks(w.wish.Hooks)
	w.assign(rollout.Assignments(w.state, w.wish))
	w.ask(d.Ask)
	w.send()
	w.due = never
	if !d.Wake.IsZero() {
		w.due = max(d.Wake.Sub(Epoch), w.now+time.Millisecond)
	}
}

// store keeps the next state. In an exact world it is what is read back.
func (w *World) store(next rollout.State) {
	w.state = next
	if !w.conf.Exact {
		return
	}
	data, err := rollout.EncodeState(next)
	if err == nil {
		w.state, err = rollout.DecodeState(data)
	}
	if err != nil {
		w.promises.fault(w.now, "a state that cannot be read back: %v\n%s", err, data)
	}
}

// because keeps how long each reason was given.
func (w *World) because(r rollout.Reason) {
	w.promises.reasons[w.reason.Code] += w.now - w.since
	w.reason, w.since = r, w.now
	w.promises.reasons[r.Code] += 0
}
