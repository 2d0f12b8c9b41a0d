// Package control is the one loop with effects: it looks, has rollout.Step decide,
// stores the decision, and lets it show.
package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/internal/level"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// Store remembers states. See Stored for what it promises.
type Store interface {
	// Load returns every stored service state.
	Load(ctx context.Context) (map[discovery.Service]state.Stored, error)
	// Replace stores next if what is stored is still old, else ErrConflict.
	Replace(ctx context.Context, service discovery.Service, old state.Stored, next []byte) (state.Stored, error)
}

// Service is what is configured for one service.
type Service struct {
	// Live is the colour of a service that was never seen before.
	Live   discovery.Colour
	Policy policy.Policy
}

// Ports is what the controller acts through.
type Ports struct {
	Store Store
	Drain *contract.Client
	// Publish makes the proxies hear the wishes. It returns, per service, why
	// nothing was published for it; such a service keeps what it had.
	Publish func(desired.Wishes) map[discovery.Service]string
	// Proxies lists the proxies as seen from a service, against what was
	// published last.
	Proxies func(discovery.Service) []observed.Proxy
	// Loads returns what the proxies report of a service; they are not to be
	// changed. Nil: nothing is reported.
	Loads func(discovery.Service) (map[observed.Place]observed.Load, map[discovery.Colour]observed.Witness)
	// Gates answers for the gates of the policies; nil: they are never open.
	Gates Gates
	// Hooks calls the hooks of the policies; nil: none is ever called.
	Hooks  Hooks
	Logger *slog.Logger
}

// Gates asks the gates of a policy. Ask and Readings are called by one goroutine and
// return at once; the implementation gives Notice when there is a new reading.
type Gates interface {
	// Ask has those of the gates that belong to the moment asked now; one that is being
	// asked is not asked again.
	Ask(service discovery.Service, gates []policy.Gate, at policy.Moment)
	// Readings is the newest reading of each gate of the service.
	Readings(service discovery.Service) map[string]observed.Reading
	// Read asks the gates beside that and waits for their answers, by name. It may be
	// called concurrently.
	Read(ctx context.Context, service discovery.Service, gates []policy.Gate) map[string]observed.Reading
}

// Hooks calls the hook of instances. Both are called by one goroutine and return
// at once; the implementation gives Notice when a call ends.
type Hooks interface {
	// Call replaces the whole map of what is wished for a service.
	Call(service discovery.Service, orders map[discovery.InstanceID]desired.HookOrder)
	// Runs is the newest call of each instance of the service.
	Runs(service discovery.Service) map[discovery.InstanceID]observed.HookRun
}

// Controller is the one loop with effects: it looks, lets Step decide, stores
// the decision, and lets it show. All methods may be called concurrently.
type Controller struct {
	ports    Ports
	watcher  *watcher
	notices  level.Level // something was seen, look again
	counts   level.Level // only counts were seen, look again within glance
	commands chan *request
	since    time.Time

	// Whole values handed over by others; newest wins.
	mu       sync.Mutex
	services map[discovery.Service]Service
	snapshot discovery.Snapshot
	shown    map[discovery.Service]*rollout.View // nil before the first publication
	views    map[discovery.Service]rollout.View  // of shown; nil while nobody has asked for the newest
	newer    chan struct{}                       // closed when something else is shown
	news     news

	// Owned by Run's goroutine.
	running   map[discovery.Service]*running
	names     []discovery.Service // of running, sorted
	published desired.Wishes
	tried     time.Time // when Publish was called last; zero before the first
	refused   map[discovery.Service]string
	reloading bool // what is stored is being read again

	group sync.WaitGroup
}

// news is what has happened since the last pass.
type news struct {
	all      bool // anything may have happened to any service
	stale    bool // configured anew: publish although the wishes are the same
	services map[discovery.Service]bool
	writes   []written
	reload   *reloaded
}

// running is one service as Run holds it.
type running struct {
	state  state.State
	stored state.Stored
	known  bool          // some state of it was stored, so what follows from it may show
	view   *rollout.View // never changed once made; nil before the first
	wake   time.Time
	// behind is since when the view is not of state, or of a state that is being
	// replaced; zero when it is what Step said last.
	behind time.Time

	write  *write // under way; nil when there is none
	writes int    // how many have begun
	// failure is why the last one failed and retry when it is tried again; nil
	// while it works. doubt: it may be stored nevertheless, read again.
	failure error
	retry   time.Time
	doubt   bool

	commands []*request // wait for the write under way
	answers  []*request // carried out; they wait for the view
}

// New returns a controller that has started nothing; Run does.
func New(ports Ports) *Controller {
	c := &Controller{
		ports:    ports,
		notices:  level.New(),
		counts:   level.New(),
		commands: make(chan *request),
		newer:    make(chan struct{}),
		running:  map[discovery.Service]*running{},
		refused:  map[discovery.Service]string{},
	}
	c.watcher = newWatcher(ports.Drain, c.touch, func(name discovery.Service) {
		c.mark(name)
		c.counts.Set()
	})
	return c
}

// Configure sets the services that are configured. One that is left out later is
// retired.
func (c *Controller) Configure(services map[discovery.Service]Service) {
	c.mu.Lock()
	c.services, c.news.stale = maps.Clone(services), true
	c.mu.Unlock()
	c.Notice()
}

// Discovered hands over the newest Snapshot.
func (c *Controller) Discovered(s discovery.Snapshot) {
	c.mu.Lock()
	for name, fleet := range s {
		if was, ok := c.snapshot[name]; !ok || !was.Equal(fleet) {
			c.news.add(name)
		}
	}
	for name := range c.snapshot {
		if _, ok := s[name]; !ok {
			c.news.add(name)
		}
	}
	c.snapshot = s
	c.mu.Unlock()
	c.notices.Set()
}

// Notice says that something may have changed for any service, such as a proxy's
// acknowledgement.
func (c *Controller) Notice() {
	c.mu.Lock()
	c.news.all = true
	c.mu.Unlock()
	c.notices.Set()
}

// NoticeOf says that something may have changed for these services.
func (c *Controller) NoticeOf(services ...discovery.Service) {
	if len(services) == 0 {
		return
	}
	c.mu.Lock()
	for _, name := range services {
		c.news.add(name)
	}
	c.mu.Unlock()
	c.notices.Set()
}

// touch says that something may have changed for one service.
func (c *Controller) touch(name discovery.Service) {
	c.mark(name)
	c.notices.Set()
}

func (c *Controller) mark(name discovery.Service) {
	c.mu.Lock()
	c.news.add(name)
	c.mu.Unlock()
}

func (n *news) add(name discovery.Service) {
	if n.services == nil {
		n.services = map[discovery.Service]bool{}
	}
	n.services[name] = true
}

// Views returns every service and a channel that is closed when there is
// something newer. It is empty until discovery and state are completely read.
func (c *Controller) Views() (map[discovery.Service]rollout.View, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.views == nil && c.shown != nil {
		c.views = make(map[discovery.Service]rollout.View, len(c.shown))
		for name, v := range c.shown {
			c.views[name] = *v
		}
	}
	return c.views, c.newer
}

// Heard is what the instances of a service said last; it is not to be changed. Views has
// it, too, of when the service was looked at.
func (c *Controller) Heard(service discovery.Service) map[discovery.InstanceID]observed.Sighting {
	return c.watcher.seen(service)
}

// Ready is nil once discovery and state are completely read and published.
func (c *Controller) Ready() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shown != nil {
		return nil
	}
	for s := range c.services {
		if _, ok := c.snapshot[s]; !ok {
			return fmt.Errorf("service %s has not been read from discovery yet", s)
		}
	}
	return errors.New("the first publish is under way")
}

// Plan computes what a promotion would do now, and asks the gates and each instance
// that was not heard lately.
func (c *Controller) Plan(ctx context.Context, service discovery.Service, to discovery.Colour, o policy.Overrides) (rollout.Plan, error) {
	views, _ := c.Views()
	v, ok := views[service]
	if !ok {
		return rollout.Plan{}, c.unknown(service)
	}
	c.watcher.fresh(ctx, service)
	if now := c.watcher.seen(service); now != nil {
		v.Seen.Instances = now
	}
	plan, err := rollout.Promote{Service: service, Target: to, Overrides: o}.Plan(v.Policy, v.State, v.Seen, time.Now())
	if err != nil || c.ports.Gates == nil {
		return plan, err
	}
	return plan.Answered(c.ports.Gates.Read(ctx, service, plan.Policy.Gates)), nil
}

func (c *Controller) unknown(service discovery.Service) error {
	if err := c.Ready(); err != nil {
		return &rollout.Refusal{Code: rollout.NotReady, Text: fmt.Sprintf("rolloutd is not ready: %v; try again in a moment", err)}
	}
	return &rollout.Refusal{Code: rollout.UnknownService, Text: fmt.Sprintf("service %q is not configured; rolloutctl status lists the services", service)}
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
	var looked, next time.Time // the last look and the next, zero: when something is noticed
	var took time.Duration
	// One thing at a time: a command, something seen, or time passed.
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-c.commands:
			c.accept(r)
		case <-c.notices:
			crowd(ctx, looked.Add(min(took, tired)))
		case <-c.counts:
			if soon := time.Now().Add(glance); next.IsZero() || soon.Before(next) {
				next = soon
				wake.Reset(glance)
			}
			continue
		case <-wake.C:
		}
		began := time.Now()
		next = c.pass(ctx)
		looked = time.Now()
		took = looked.Sub(began)
		if next.IsZero() {
			wake.Stop()
		} else {
			wake.Reset(max(time.Until(next), time.Millisecond))
		}
	}
}

// glance is how late counts that no decision waits for are looked at: a large
// fleet answers all the time.
const glance = 250 * time.Millisecond

// tired is the longest pause after a pass that took long, before the next one.
const tired = 20 * time.Millisecond

// crowd waits until the last look is a moment ago: a large fleet's answers come
// in crowds, and what is noticed together is looked at once.
func crowd(ctx context.Context, looked time.Time) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Until(looked.Add(2 * time.Millisecond))):
	}
}

func (c *Controller) load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*rollout.StorePatience)
	defer cancel()
	all, err := c.ports.Store.Load(ctx)
	if err != nil {
		return fmt.Errorf("load the stored state: %w", err)
	}
	for service, stored := range all {
		s, err := state.Decode(stored.Data)
		if err != nil {
			return fmt.Errorf("load the stored state of %s: %w", service, err)
		}
		c.running[service] = &running{state: s.Resumed(time.Now()), stored: stored, known: true}
	}
	c.names = slices.Sorted(maps.Keys(c.running))
	return nil
}
