package rollout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/drain"
)

// Store remembers states. See Stored for what it promises.
type Store interface {
	// Load returns every stored service state.
	Load(ctx context.Context) (map[discovery.Service]Stored, error)
	// Replace stores next if what is stored is still old, else ErrConflict.
	Replace(ctx context.Context, service discovery.Service, old Stored, next []byte) (Stored, error)
}

// Service is what is configured for one service.
type Service struct {
	// Live is the colour of a service that was never seen before.
	Live   discovery.Colour
	Policy Policy
}

// Ports is what the controller acts through.
type Ports struct {
	Store Store
	Drain *drain.Client
	// Publish makes the proxies hear the wishes. It returns, per service, why
	// nothing was published for it; such a service keeps what it had.
	Publish func(Wishes) map[discovery.Service]string
	// Proxies lists the proxies as seen from a service, against what was
	// published last.
	Proxies func(discovery.Service) []Proxy
	Logger  *slog.Logger
}

// Controller is the one loop with effects: it looks, lets Step decide, stores
// the decision, and lets it show. All methods may be called concurrently.
type Controller struct {
	ports    Ports
	watcher  *watcher
	notices  chan struct{} // capacity 1: something was seen, look again
	commands chan request
	since    time.Time

	// Whole values handed over by others; newest wins.
	mu       sync.Mutex
	services map[discovery.Service]Service
	snapshot discovery.Snapshot
	views    map[discovery.Service]View
	newer    chan struct{} // closed when views are replaced

	stale    bool // configured anew: publish although the wishes are the same

	// Owned by Run's goroutine.
	running   map[discovery.Service]*running
	published Wishes
	tried     time.Time // when Publish was called last; zero before the first
	refused   map[discovery.Service]string
	group     sync.WaitGroup
}

// running is one service as Run holds it.
type running struct {
	state  State
	stored Stored
	view   View
	wake   time.Time
	// failure is why the last store failed and retry when it is tried again; nil
	// while it works.
	failure error
	retry   time.Time
}

type request struct {
	ctx     context.Context
	command Command
	reply   chan reply // capacity 1: the loop never waits for who asked
}

type reply struct {
	answer Answer
	err    error
}

// NewController starts nothing; Run does.
func NewController(ports Ports) *Controller {
	c := &Controller{
		ports:    ports,
		notices:  make(chan struct{}, 1),
		commands: make(chan request),
		newer:    make(chan struct{}),
		running:  map[discovery.Service]*running{},
		refused:  map[discovery.Service]string{},
	}
	c.watcher = newWatcher(ports.Drain, c.Notice)
	return c
}

// Configure sets the services that are configured. One that is left out later is
// retired.
func (c *Controller) Configure(services map[discovery.Service]Service) {
	c.mu.Lock()
	c.services, c.stale = maps.Clone(services), true
	c.mu.Unlock()
	c.Notice()
}

// Discovered hands over the newest Snapshot.
func (c *Controller) Discovered(s discovery.Snapshot) {
	c.mu.Lock()
	c.snapshot = s
	c.mu.Unlock()
	c.Notice()
}

// Notice says that something may have changed, such as a proxy's acknowledgement.
func (c *Controller) Notice() {
	select {
	case c.notices <- struct{}{}:
	default:
	}
}

// Views returns every service and a channel that is closed when there is
// something newer. It is empty until discovery and state are completely read.
func (c *Controller) Views() (map[discovery.Service]View, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.views, c.newer
}

// Ready is nil once discovery and state are completely read and published.
func (c *Controller) Ready() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.views != nil {
		return nil
	}
	for s := range c.services {
		if _, ok := c.snapshot[s]; !ok {
			return fmt.Errorf("service %s has not been read from discovery yet", s)
		}
	}
	return errors.New("the first publish is under way")
}

// Plan computes what a promotion would do now.
func (c *Controller) Plan(service discovery.Service, to discovery.Colour, o Overrides) (Plan, error) {
	views, _ := c.Views()
	v, ok := views[service]
	if !ok {
		return Plan{}, c.unknown(service)
	}
	return MakePlan(v.State, v.Seen, to, o.Over(v.Policy), time.Now())
}

func (c *Controller) unknown(service discovery.Service) error {
	if err := c.Ready(); err != nil {
		return refuse(NotReady, "rolloutd is not ready: %v; try again in a moment", err)
	}
	return refuse(UnknownService, "service %q is not configured; rolloutctl status lists the services", service)
}

// Do carries out a command: when it returns without error, what it decided is
// stored. An error is a *Refusal, or the end of ctx.
func (c *Controller) Do(ctx context.Context, command Command) (Answer, error) {
	r := request{ctx: ctx, command: command, reply: make(chan reply, 1)}
	select {
	case c.commands <- r:
	case <-ctx.Done():
		return Answer{}, context.Cause(ctx)
	}
	select {
	case x := <-r.reply:
		return x.answer, x.err
	case <-ctx.Done():
		return Answer{}, context.Cause(ctx)
	}
}

// Run loads the states and then decides until ctx ends. It fails at once when a
// stored state cannot be read: nothing is ever overwritten blindly.
func (c *Controller) Run(ctx context.Context) error {
	defer c.group.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := c.load(ctx); err != nil {
		return err
	}
	c.since = time.Now()
	wake := time.NewTimer(0)
	defer wake.Stop()
	// One thing at a time: a command, something seen, or time passed.
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-c.commands:
			answer, err := c.command(r.ctx, r.command)
			r.reply <- reply{answer, err}
		case <-c.notices:
			// A large fleet's answers come in crowds: one look for all of them.
			crowd(ctx)
		case <-wake.C:
		}
		if next := c.lookAtAll(ctx); next.IsZero() {
			wake.Stop()
		} else {
			wake.Reset(max(time.Until(next), time.Millisecond))
		}
	}
}

// crowd waits a moment, so that what is noticed together is looked at once.
func crowd(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(2 * time.Millisecond):
	}
}

func (c *Controller) load(ctx context.Context) error {
	all, err := c.ports.Store.Load(ctx)
	if err != nil {
		return fmt.Errorf("load the stored state: %w", err)
	}
	for service, stored := range all {
		s, err := DecodeState(stored.Data)
		if err != nil {
			return fmt.Errorf("load the stored state of %s: %w", service, err)
		}
		c.running[service] = &running{state: s, stored: stored}
	}
	return nil
}

// lookAtAll decides for every service and publishes; it returns when to look
// again. Nothing happens before every configured service was read once.
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
		fleet, configured := snapshot[name]
		if _, ok := services[name]; ok != configured && ok {
			continue // new in the configuration, not read yet
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
			c.running[name] = &running{state: NewState(name, s.Live)}
		}
	}
}

// prepare stores the state of a service that has none yet and derives its wish.
func (c *Controller) prepare(ctx context.Context, name discovery.Service, fleet discovery.Fleet) error {
	run := c.running[name]
	if run.stored.Version == "" {
		if err := c.store(ctx, run, run.state); err != nil {
			return err
		}
	}
	c.wish(name, Wished(run.state, c.see(name, fleet)))
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
		wish := Wished(run.state, seen)
		again := c.refused[name] != "" && now.Sub(c.tried) >= recheck
		if run.stored.Version != "" && (c.wish(name, wish) || again) {
			c.publish()
			seen = c.see(name, fleet)
		}
		c.watcher.set(ctx, &c.group, name, wanted(run.state, wish))

		d := Step(run.state, seen, now)
		if d.Next.Retired == configured {
			d.Next, d.Changed = retire(d.Next, !configured), true
		}
		if d.Changed || run.stored.Version == "" {
			err := c.store(ctx, run, d.Next)
			if err == nil {
				continue
			}
			d.Reason, d.Wake = reason(StoreFailing, "waiting: %v", err), run.retry
		}
		c.watcher.ask(name, d.Ask)
		c.say(name, run, View{State: run.state, Seen: seen, Wish: wish, Reason: d.Reason, Policy: conf.Policy})
		run.wake = d.Wake
		if c.refused[name] != "" && run.wake.IsZero() {
			run.wake = now.Add(recheck)
		}
		return
	}
}

func retire(s State, retired bool) State {
	s = s.Clone()
	s.Retired = retired
	if retired {
		s.Rollout = nil
	}
	return s
}

// see gathers everything that is seen of a service now.
func (c *Controller) see(name discovery.Service, fleet discovery.Fleet) Seen {
	return Seen{
		Fleet: fleet, Instances: c.watcher.seen(name), Proxies: c.ports.Proxies(name),
		Watching: c.since, Unpublished: c.refused[name],
	}
}

// wish puts a service's wish into the map that is published next and reports
// whether it is news.
func (c *Controller) wish(name discovery.Service, w Wish) bool {
	if old, ok := c.published[name]; ok && reflect.DeepEqual(old, w) {
		return false
	}
	next := maps.Clone(c.published)
	if next == nil {
		next = Wishes{}
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
func (c *Controller) store(ctx context.Context, run *running, next State) error {
	now := time.Now()
	if run.failure != nil && now.Before(run.retry) {
		return run.failure
	}
	if err := next.Check(); err != nil {
		return fmt.Errorf("a decision was refused: %w", err)
	}
	data, err := EncodeState(next)
	if err != nil {
		return err
	}
	stored, err := c.ports.Store.Replace(ctx, next.Service, run.stored, data)
	if err != nil {
		run.failure = fmt.Errorf("the next state cannot be stored: %w", err)
		run.retry = now.Add(recheck)
		return run.failure
	}
	run.state, run.stored, run.failure = next, stored, nil
	return nil
}

// command lets an operator's command change the state.
func (c *Controller) command(ctx context.Context, command Command) (Answer, error) {
	name := command.service()
	run, ok := c.running[name]
	views, _ := c.Views()
	if !ok || views == nil {
		return Answer{}, c.unknown(name)
	}
	c.mu.Lock()
	conf, configured := c.services[name]
	fleet := c.snapshot[name]
	c.mu.Unlock()
	if !configured {
		return Answer{}, c.unknown(name)
	}
	next, answer, err := command.apply(conf.Policy, run.state, c.see(name, fleet), time.Now())
	if err != nil {
		return Answer{}, err
	}
	if reflect.DeepEqual(next, run.state) {
		return answer, nil
	}
	run.failure = nil // an operator's command is tried at once
	if err := c.store(ctx, run, next); err != nil {
		return Answer{}, refuse(NotStored, "%s: nothing was changed: %v; mend the store and try again", name, err)
	}
	c.ports.Logger.Info("command", "service", name, "answer", answer.Text)
	return answer, nil
}

// say logs a reason when it changes and keeps the view.
func (c *Controller) say(name discovery.Service, run *running, v View) {
	was := run.view
	run.view = v
	if was.Reason.Code != v.Reason.Code || was.State.Phase() != v.State.Phase() {
		c.ports.Logger.Info("rollout", "service", name, "phase", v.State.Phase(), "reason", v.Reason.Text)
	}
}

// show hands the views to whoever watches.
func (c *Controller) show() {
	next := make(map[discovery.Service]View, len(c.running))
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
