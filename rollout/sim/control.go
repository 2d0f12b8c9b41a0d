package sim

import (
	"cmp"
	"fmt"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
)

// Do carries out an operator's command.
func (w *World) Do(c rollout.Command) error {
	next, _, err := rollout.Apply(c, w.conf.Policy, w.state, w.see(), w.clock())
	if err != nil {
		return err
	}
	w.state, w.dirty = next, true
	return nil
}

// see adds to what is kept up to date all the time what the proxies say.
func (w *World) see() rollout.Seen {
	s := w.seen
	s.Proxies = make([]rollout.Proxy, len(w.proxies))
	for i, p := range w.proxies {
		s.Proxies[i] = rollout.Proxy{Node: fmt.Sprintf("edge-%d", i+1), Connected: true, Confirmed: p.heard == w.version}
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
		seen, version := w.see(), w.version
		var d rollout.Decision
		var beside sync.WaitGroup
		beside.Go(func() { d = rollout.Step(w.state, seen, w.clock()) })
		w.wish = rollout.Wished(w.state, seen)
		beside.Wait()
		if w.publish(); w.version != version {
			d = rollout.Step(w.state, w.see(), w.clock())
		}
		w.because(d.Reason)
		if d.Changed {
			if err := d.Next.Check(); err != nil {
				w.promises.fault(w.now, "a decision no state may have: %v", err)
			}
			w.state = d.Next
			continue
		}
		w.assign(rollout.Assignments(w.state, w.wish))
		w.ask(d.Ask)
		w.talk()
		if d.AskGates {
			w.askGates()
		}
		w.due = 0
		if !d.Wake.IsZero() {
			w.due = max(d.Wake.Sub(epoch), w.now+time.Millisecond)
		}
		return
	}
	w.promises.fault(w.now, "Step never comes to rest: %s", w.reason.Text)
}

// because keeps how long each reason was given.
func (w *World) because(r rollout.Reason) {
	w.promises.reasons[w.reason.Code] += w.now - w.since
	w.reason, w.since = r, w.now
	w.promises.reasons[r.Code] += 0
}

// publish has the proxies hear what is wished, each after its delay.
func (w *World) publish() {
	open := make([]bool, len(w.instances))
	weights := [2]int{int(w.wish.Weights[discovery.Blue]), int(w.wish.Weights[discovery.Green])}
	news := weights != w.weights || len(open) != len(w.open)
	for _, all := range w.wish.Endpoints {
		for _, e := range all {
			open[w.byAddr[e.Addr].index] = !e.Draining
		}
	}
	for i := range open {
		news = news || open[i] != w.open[i]
	}
	if news {
		w.version++
		w.open, w.weights = open, weights
	}
	for _, p := range w.proxies {
		if p.told == w.version {
			continue
		}
		p.told = w.version
		version := w.version
		w.after(p.delay, func() {
			if p.told == version {
				w.acknowledge(p)
			}
		})
	}
}

func (w *World) acknowledge(p *proxy) {
	for c := range p.open {
		for _, in := range p.open[c] {
			in.openAt = max(0, in.openAt-1)
		}
		p.open[c] = p.open[c][:0]
	}
	for i, open := range w.open {
		in := w.instances[i]
		if open && w.weights[in.side] > 0 {
			p.open[in.side] = append(p.open[in.side], in)
			in.openAt++
		}
	}
	p.weights, p.heard, w.dirty = w.weights, w.version, true
}

// askGates has the policy's gates answered.
func (w *World) askGates() {
	if w.asking || w.state.Rollout == nil {
		return
	}
	w.asking = true
	at := w.clock()
	w.after(20*time.Millisecond, func() {
		w.asking, w.dirty = false, true
		all := map[string]rollout.Reading{}
		for _, g := range w.conf.Policy.Gates {
			text := ""
			if w.gate != nil {
				text = w.gate()
			}
			all[g.Name] = rollout.Reading{Open: text == "", Text: cmp.Or(text, "0"), At: at}
		}
		w.seen.Gates = all
	})
}
