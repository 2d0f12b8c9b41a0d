package control

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
)

// retryAfter is how long after a failure the store, or the publisher, is tried again.
const retryAfter = time.Second

// lookAtAll decides for every service and publishes; it returns when to look
// again. Nothing happens before discovery says of every configured service what it
// read, or why it cannot.
func (c *Controller) lookAtAll(ctx context.Context) time.Time {
	c.mu.Lock()
	services, snapshot, stale := c.services, c.snapshot, c.stale
	c.mu.Unlock()
	if snapshot == nil || services == nil {
		return time.Time{}
	}
	if c.tried.IsZero() {
		for s := range services {
			if _, ok := snapshot[s]; !ok {
				return time.Time{}
			}
		}
	}
	c.enroll(services, snapshot)
	if c.tried.IsZero() {
		// The first publish has everything: every state is stored and every wish
		// derived before any proxy hears of one.
		for _, name := range slices.Sorted(maps.Keys(c.running)) {
			if err := c.prepare(ctx, name, snapshot[name]); err != nil {
				c.ports.Logger.Error("not started yet", "service", name, "error", err)
				return time.Now().Add(time.Second)
			}
		}
	}
	if c.tried.IsZero() || stale {
		c.mu.Lock()
		c.stale = false
		c.mu.Unlock()
		c.publish()
	}
	var wake time.Time
	for _, name := range slices.Sorted(maps.Keys(c.running)) {
		run := c.running[name]
		_, configured := services[name]
		fleet, read := snapshot[name]
		if configured && !read {
			continue // new in the configuration
		}
		c.look(ctx, name, services, fleet)
		if !run.wake.IsZero() && (wake.IsZero() || run.wake.Before(wake)) {
			wake = run.wake
		}
	}
	c.show()
	return wake
}

// enroll begins to run what is configured and was never seen before.
func (c *Controller) enroll(services map[discovery.Service]Service, snapshot discovery.Snapshot) {
	for name, s := range services {
		if _, ok := snapshot[name]; ok && c.running[name] == nil {
			c.running[name] = &running{state: rollout.NewState(name, s.Live)}
		}
	}
}

// prepare stores the state of a service that has none yet and derives its wish.
func (c *Controller) prepare(ctx context.Context, name discovery.Service, fleet discovery.Fleet) error {
	run := c.running[name]
	if run.stored.Version == "" && fleet.Unread == "" {
		if err := c.store(ctx, run, run.state); err != nil {
			return err
		}
	}
	c.wish(name, rollout.Wished(run.state, c.see(name, fleet)))
	return nil
}

// look lets Step decide about one service until nothing changes: look, decide,
// store, let it show, look again.
func (c *Controller) look(ctx context.Context, name discovery.Service, services map[discovery.Service]Service, fleet discovery.Fleet) {
	run := c.running[name]
	conf, configured := services[name]
	if !configured {
		fleet = discovery.Fleet{}
	}
	for {
		now := time.Now()
		seen := c.see(name, fleet)
		wish := rollout.Wished(run.state, seen)
		again := c.refused[name] != "" && now.Sub(c.tried) >= retryAfter
		// Of what was never read nothing is stored: its colours are not known yet.
		unknown := run.stored.Version == "" && fleet.Unread != ""
		if (run.stored.Version != "" || unknown) && (c.wish(name, wish) || again) {
			c.publish()
			seen = c.see(name, fleet)
		}
		if c.ports.Hooks != nil {
			c.ports.Hooks.Call(name, wish.Hooks)
		}
		c.watcher.set(ctx, &c.group, name, rollout.Assignments(run.state, wish))

		d := rollout.Step(run.state, seen, now)
		if d.Next.Retired == configured {
			d.Next, d.Changed = d.Next.Retire(!configured), true
		}
		if d.Changed || run.stored.Version == "" && !unknown {
			err := c.store(ctx, run, d.Next)
			if err == nil {
				continue
			}
			d.Reason, d.Wake = rollout.Reason{Code: rollout.StoreFailing, Text: "waiting: " + err.Error()}, run.retry
		}
		c.watcher.ask(name, d.Ask)
		if d.AskGates && c.ports.Gates != nil {
			c.ports.Gates.Ask(name, run.state.Rollout.Policy.Gates)
		}
		c.say(name, run, rollout.View{State: run.state, Seen: seen, Wish: wish, Reason: d.Reason, Policy: conf.Policy})
		run.wake = d.Wake
		if c.refused[name] != "" && run.wake.IsZero() {
			run.wake = now.Add(retryAfter)
		}
		return
	}
}

// reload reads again what is stored of a service, after storing failed: it may be
// another state now, even the one that failed. If there is none any more, as in a
// Consul that was started empty, what is remembered here still holds and is
// stored anew, unless somebody else is faster.
func (c *Controller) reload(ctx context.Context, name discovery.Service, run *running) {
	ctx, cancel := context.WithTimeout(ctx, rollout.StorePatience)
	defer cancel()
	all, err := c.ports.Store.Load(ctx)
	if err != nil {
		return
	}
	stored, ok := all[name]
	if !ok {
		if run.stored.Version != "" {
			c.ports.Logger.Warn("the stored state is gone and is stored anew", "service", name)
		}
		run.stored = rollout.Stored{}
		return
	}
	if s, err := rollout.DecodeStateOf(name, stored.Data); err == nil {
		run.state, run.stored = s, stored
	}
}

// see gathers everything that is seen of a service now.
func (c *Controller) see(name discovery.Service, fleet discovery.Fleet) rollout.Seen {
	seen := rollout.Seen{
		Fleet: fleet, Instances: c.watcher.seen(name), Proxies: c.ports.Proxies(name),
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

// wish puts a service's wish into the map that is published next and reports
// whether it is another.
func (c *Controller) wish(name discovery.Service, w rollout.Wish) bool {
	if old, ok := c.published[name]; ok && reflect.DeepEqual(old, w) {
		return false
	}
	next := maps.Clone(c.published)
	if next == nil {
		next = rollout.Wishes{}
	}
	next[name] = w
	c.published = next
	return true
}

// publish lets the wishes show.
func (c *Controller) publish() {
	c.tried = time.Now()
	c.refused = c.ports.Publish(c.published)
}

// store remembers the next state before it may show. After a failure nothing is
// tried again for a second.
func (c *Controller) store(ctx context.Context, run *running, next rollout.State) error {
	now := time.Now()
	if run.failure != nil && now.Before(run.retry) {
		return run.failure
	}
	data, err := rollout.EncodeState(next)
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, rollout.StorePatience)
	defer cancel()
	stored, err := c.ports.Store.Replace(bounded, next.Service, run.stored, data)
	if err != nil {
		run.failure = rollout.Unstored(err)
		run.retry = now.Add(retryAfter)
		c.reload(ctx, next.Service, run)
		return run.failure
	}
	run.state, run.stored, run.failure = next, stored, nil
	return nil
}

// say logs a reason when it changes and keeps the view.
func (c *Controller) say(name discovery.Service, run *running, v rollout.View) {
	was := run.view
	run.view = v
	if was.Reason.Code != v.Reason.Code && was.Reason.Text != v.Reason.Text || was.State.Phase() != v.State.Phase() {
		c.ports.Logger.Info("rollout", "service", name, "phase", v.State.Phase(), "reason", v.Reason.Text)
	}
}

// show hands the views to those that wait for newer ones.
func (c *Controller) show() {
	next := make(map[discovery.Service]rollout.View, len(c.running))
	for name, run := range c.running {
		if run.view.State.Service != "" {
			next[name] = run.view
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.views = next
	close(c.newer)
	c.newer = make(chan struct{})
}
