package control

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// retryAfter is how long after a failure the store, or the publisher, is tried again.
const retryAfter = time.Second

// world is what a pass looks at: whole values, and which services may have changed.
type world struct {
	services map[discovery.Service]Service
	snapshot discovery.Snapshot
	due      map[discovery.Service]bool
	now      time.Time
}

// fleet is what discovery says of a service; nothing of one that left the configuration.
func (w world) fleet(name discovery.Service) discovery.Fleet {
	if _, configured := w.services[name]; !configured {
		return discovery.Fleet{}
	}
	return w.snapshot[name]
}

// pass is one look at every service of which something is new. What follows from the
// states as they are stored shows first, in one publication, and waits for no store.
// Then every service is decided about. What a decision changes is stored aside, one
// write per service at a time; the service is looked at again when that has ended. It
// returns when to look again.
func (c *Controller) pass(ctx context.Context) time.Time {
	w, news := c.take()
	c.conclude(ctx, news, w)
	if w.snapshot == nil || w.services == nil {
		return time.Time{}
	}
	if c.tried.IsZero() && !c.complete(w) {
		return time.Time{}
	}
	c.enroll(w)
	if c.tried.IsZero() && !c.remember(ctx, w) {
		return c.nextWake()
	}
	if wait := c.settling(w); !wait.IsZero() {
		for _, name := range c.names {
			c.look(ctx, name, w)
		}
		return earlier(c.nextWake(), wait)
	}
	changed := false
	for _, name := range c.names {
		if w.due[name] {
			changed = c.wish(name, w, changed) || changed
		}
	}
	if changed || news.stale || c.tried.IsZero() || len(c.refused) > 0 && w.now.Sub(c.tried) >= retryAfter {
		c.publish(w)
	}
	for _, name := range c.names {
		if w.due[name] {
			c.look(ctx, name, w)
		}
	}
	if len(w.due) > 0 {
		c.show(w)
	}
	return c.nextWake()
}

// take returns what there is to look at, and takes the news.
func (c *Controller) take() (world, news) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := world{services: c.services, snapshot: c.snapshot, due: map[discovery.Service]bool{}, now: time.Now()}
	taken := c.news
	c.news = news{}
	all := taken.all || taken.stale || c.tried.IsZero()
	for name, run := range c.running {
		if all || taken.services[name] || len(run.commands) > 0 || !run.wake.IsZero() && !w.now.Before(run.wake) {
			w.due[name] = true
		}
	}
	return w, taken
}

// complete reports whether every configured service was read once.
func (c *Controller) complete(w world) bool {
	for s := range w.services {
		if _, ok := w.snapshot[s]; !ok {
			return false
		}
	}
	return true
}

// enroll begins to run what is configured and was never seen before.
func (c *Controller) enroll(w world) {
	for name, s := range w.services {
		if _, ok := w.snapshot[name]; ok && c.running[name] == nil {
			c.running[name] = &running{state: state.NewUnsettled(name, s.Live)}
			c.names = append(c.names, name)
			w.due[name] = true
		}
	}
	slices.Sort(c.names)
}

// remember has a state of every service stored before the first publication, which
// has everything: every wish is derived before any proxy hears of one. A service whose
// state cannot be stored holds up the others once only, one that is unread nobody.
func (c *Controller) remember(ctx context.Context, w world) bool {
	known, tried := false, true
	for _, name := range c.names {
		run := c.running[name]
		if c.unread(name, w) {
			known = true
			continue
		}
		if !run.known && run.write == nil && !w.now.Before(run.retry) {
			if next := rollout.Step(run.state, c.see(name, w), w.now).Next; next.Unsettled {
				run.state = next
			} else {
				c.begin(ctx, name, next, nil)
			}
		}
		if run.state.Unsettled && run.write == nil && run.failure == nil {
			known = true // and settling says how long it is waited for
			continue
		}
		known = known || run.known
		tried = tried && (run.known || run.failure != nil)
		if run.wake = run.retry; run.write != nil {
			run.wake = time.Time{}
		}
	}
	return len(c.names) == 0 || known && tried
}

// settleWithin is how long the first publication waits for services of which nothing
// is stored.
const settleWithin = 2 * time.Second

// settling is until when the first publication waits for services whose live colour is
// not proven yet, so that no new proxy is told of them that they are nowhere; zero when
// it does not.
func (c *Controller) settling(w world) time.Time {
	end := c.since.Add(settleWithin)
	if !c.tried.IsZero() || !w.now.Before(end) {
		return time.Time{}
	}
	for name, run := range c.running {
		if run.state.Unsettled && run.failure == nil && !c.unread(name, w) {
			return end
		}
	}
	return time.Time{}
}

// earlier is the first of two times that is not zero.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// unread reports whether nothing at all is known of a service: neither was it ever
// read, nor is anything stored. Nothing is stored of it then, and it has no instances.
func (c *Controller) unread(name discovery.Service, w world) bool {
	return !c.running[name].known && w.fleet(name).Unread != ""
}

// look lets Step decide about one service, or a command. A decision that changes
// nothing is what the view says; one that does is stored aside first, and what shows
// until then is the view before.
func (c *Controller) look(ctx context.Context, name discovery.Service, w world) {
	run := c.running[name]
	conf, configured := w.services[name]
	seen, wish := c.see(name, w), c.published[name]
	run.wake = time.Time{}
	if _, read := w.snapshot[name]; configured && !read {
		c.obey(ctx, name, conf, configured, seen, w.now)
		return // new in the configuration
	}
	if run.known || run.state.Unsettled {
		if c.ports.Hooks != nil {
			c.ports.Hooks.Call(name, wish.Hooks)
		}
		c.watcher.set(ctx, &c.group, name, desired.Assignments(run.state, wish, seen))
	}
	c.obey(ctx, name, conf, configured, seen, w.now)
	d := rollout.Decision{Next: run.state}
	if run.write == nil {
		d = rollout.Step(run.state, seen, w.now)
		if d.Next.Retired == configured {
			d.Next, d.Changed = d.Next.Retire(!configured), true
		}
		if d.Next.Unsettled {
			run.state, d.Changed = d.Next, false
		} else {
			d.Changed = d.Changed || run.stored.Version == "" && !c.unread(name, w)
		}
		if d.Changed && !w.now.Before(run.retry) {
			c.begin(ctx, name, d.Next, nil)
		}
		c.watcher.ask(name, d.Ask)
		if d.AskGates != "" && c.ports.Gates != nil {
			c.ports.Gates.Ask(name, run.state.Rollout.Policy.Gates, d.AskGates)
		}
	}
	switch {
	case run.write == nil && !d.Changed:
		run.behind, run.failure, run.retry, run.wake = time.Time{}, nil, time.Time{}, d.Wake
	case run.write == nil:
		d.Reason, run.wake = waiting(run.failure, seen), run.retry
	case run.failure != nil:
		d.Reason = waiting(run.failure, seen)
	default:
		if run.behind.IsZero() {
			run.behind = w.now
		}
		if slow := run.behind.Add(slow); w.now.Before(slow) {
			run.wake = slow
			return
		}
		d.Reason = waiting(errSlow, seen)
	}
	c.say(name, run, rollout.View{State: run.state, Seen: seen, Wish: wish, Reason: d.Reason, Policy: conf.Policy})
}

// nextWake is when some service is to be looked at again, or what was refused to be
// published again.
func (c *Controller) nextWake() time.Time {
	var wake time.Time
	if len(c.refused) > 0 {
		wake = c.tried.Add(retryAfter)
	}
	for _, run := range c.running {
		if at := run.next(); !at.IsZero() && (wake.IsZero() || at.Before(wake)) {
			wake = at
		}
	}
	return wake
}

// next is when the service is to be looked at again.
func (r *running) next() time.Time {
	at := r.wake
	for _, waits := range r.commands {
		if at.IsZero() || waits.by.Before(at) {
			at = waits.by
		}
	}
	return at
}

// see gathers everything that is seen of a service now.
func (c *Controller) see(name discovery.Service, w world) observed.Seen {
	seen := observed.Seen{
		Fleet: w.fleet(name), Instances: c.watcher.seen(name), Proxies: c.ports.Proxies(name),
		Watching: c.since, Unpublished: c.refused[name],
	}
	if c.ports.Loads != nil {
		seen.Loads, seen.Witnesses = c.ports.Loads(name)
	}
	if c.ports.Gates != nil {
		seen.Gates = c.ports.Gates.Readings(name)
	}
	if c.ports.Hooks != nil {
		seen.Hooks = c.ports.Hooks.Runs(name)
	}
	return seen
}

// wish puts what follows from a service's stored state into the map that is published
// next and reports whether it is another. The map is copied once per pass: own says
// that it was.
func (c *Controller) wish(name discovery.Service, w world, own bool) bool {
	run := c.running[name]
	if !run.known && !run.state.Unsettled && !c.unread(name, w) {
		return false
	}
	wish := rollout.Wished(run.state, c.see(name, w), w.now)
	if old, ok := c.published[name]; ok && old.Equal(wish) {
		return false
	}
	if !own {
		next := make(desired.Wishes, len(c.running))
		maps.Copy(next, c.published)
		c.published = next
	}
	c.published[name] = wish
	return true
}

// publish lets the wishes show. A service whose refusal is another is looked at.
func (c *Controller) publish(w world) {
	was := c.refused
	c.tried = time.Now()
	c.refused = c.ports.Publish(c.published)
	for _, name := range c.names {
		if was[name] != c.refused[name] {
			w.due[name] = true
		}
	}
}

// say logs a reason when it changes and keeps the view, for which those wait who were
// obeyed.
func (c *Controller) say(name discovery.Service, run *running, v rollout.View) {
	was := cmp.Or(run.view, new(rollout.View))
	run.view = &v
	if was.Reason.Code != v.Reason.Code && was.Reason.Text != v.Reason.Text || was.State.Phase() != v.State.Phase() {
		c.ports.Logger.Info("rollout", "service", name, "phase", v.State.Phase(), "reason", v.Reason.Text)
	}
	for _, r := range run.answers {
		r.shown = true
	}
}

// show hands the views of those that were looked at to those that wait for newer ones, and
// then answers who was obeyed: what a command is answered is what the views say.
func (c *Controller) show(w world) {
	c.mu.Lock()
	if c.shown == nil {
		c.shown = make(map[discovery.Service]*rollout.View, len(c.running))
	}
	for name := range w.due {
		if v := c.running[name].view; v != nil {
			c.shown[name] = v
		}
	}
	c.views = nil
	close(c.newer)
	c.newer = make(chan struct{})
	c.mu.Unlock()
	for name := range w.due {
		run := c.running[name]
		run.answers = slices.DeleteFunc(run.answers, func(r *request) bool {
			if r.shown {
				r.reply <- reply{r.answer, nil}
			}
			return r.shown
		})
	}
}
