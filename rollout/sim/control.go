package sim

import (
	"cmp"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/drain"
)

// How often instances are asked, as the controller does.
const (
	askMoving  = 500 * time.Millisecond
	askOthers  = 2 * time.Second
	askFailing = time.Second
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
		w.tell(d.Ask)
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
			open[w.byID[e.ID].index] = !e.Draining
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

// request is one instance being asked, or told.
type request struct {
	to     *instance
	told   *rollout.Instruction // nil only asks
	status drain.Status
	asked  bool // a decision waits for it
}

// tell says to each instance what it does not show yet, and asks whom a decision
// waits for.
func (w *World) tell(ask []discovery.InstanceID) {
	asked := make(map[*instance]bool, len(ask))
	for _, id := range ask {
		asked[w.byID[id]] = true
	}
	var batch []request
	for _, in := range w.instances {
		if _, member := w.state.Members[in.ID]; !member || in.inFlight {
			continue
		}
		if r := (request{to: in, told: w.untold(in), asked: asked[in]}); r.told != nil || r.asked {
			batch = append(batch, r)
		}
	}
	w.send(batch)
}

// untold is what the instance does not show yet.
func (w *World) untold(in *instance) *rollout.Instruction {
	sight, known := w.seen.Instances[in.ID]
	told, ok := w.wish.Orders[in.ID]
	if !known || !ok || sight.Err != "" || shows(sight.Status, told) {
		return nil
	}
	return &told
}

// poll asks whoever was not asked for a while.
func (w *World) poll() {
	var batch []request
	for _, in := range w.instances {
		if w.now < in.nextAsk || in.inFlight {
			continue
		}
		if _, member := w.state.Members[in.ID]; member {
			batch = append(batch, request{to: in, told: w.untold(in)})
		}
	}
	w.send(batch)
}

// send has requests arrive and their answers come back, each after its latency.
func (w *World) send(batch []request) {
	byLatency := map[time.Duration][]request{}
	var order []time.Duration
	for _, r := range batch {
		r.to.inFlight = true
		if byLatency[r.to.latency] == nil {
			order = append(order, r.to.latency)
		}
		byLatency[r.to.latency] = append(byLatency[r.to.latency], r)
	}
	for _, latency := range order {
		some := byLatency[latency]
		w.after(latency, func() {
			for i, r := range some {
				if !r.to.dead && r.told != nil {
					w.hear(r.to, *r.told)
				}
				some[i].status = r.to.status(w.conf.Unclear)
			}
		})
		w.after(2*latency, func() {
			for _, r := range some {
				w.answered(r)
			}
		})
	}
}

func (w *World) answered(r request) {
	in := r.to
	in.inFlight = false
	last := w.seen.Instances[in.ID]
	var err error
	if in.dead {
		err = errors.New("connection refused")
	}
	next := sighted(last, r.status, err, w.clock())
	w.seen.Instances[in.ID] = next
	pause := askOthers
	switch {
	case err != nil:
		pause = askFailing
	case w.state.Rollout != nil || in.ordered:
		pause = askMoving
	}
	in.nextAsk = w.now + pause*3/4 + time.Duration(w.rng.Int64N(int64(pause/2)))
	w.dirty, w.counted = w.dirty || r.asked || news(last, next), true
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

// The three below are the watcher's.

func shows(s drain.Status, wish rollout.Instruction) bool {
	if o := wish.Drain; o != nil {
		return s.Rollout == o.Rollout && s.State != drain.Serving && cmp.Or(cmp.Compare(s.Epoch, o.Epoch), cmp.Compare(s.Step, o.Step)) >= 0
	}
	return s.State == drain.Serving || s.Rollout == ""
}

func news(last, next rollout.Sighting) bool {
	a, b := last.Status, next.Status
	return last.At.IsZero() || a.State != b.State || a.Rollout != b.Rollout || a.Epoch != b.Epoch || a.Step != b.Step ||
		(last.Err == "") != (next.Err == "") || last.Refused != next.Refused
}

func sighted(last rollout.Sighting, status drain.Status, err error, now time.Time) rollout.Sighting {
	next := last
	if err == nil {
		next.Err, next.FailingSince, next.Refused = "", time.Time{}, false
		if gap := now.Sub(last.At).Seconds(); !last.At.IsZero() && gap > 0.05 && status.Accepted >= last.Status.Accepted {
			next.PerSecond = float64(status.Accepted-last.Status.Accepted) / gap
		}
		next.Status, next.At = status, now
		return next
	}
	if last.Err == "" {
		next.FailingSince = now
	}
	next.Err, next.ErrAt, next.Refused = err.Error(), now, true
	return next
}
