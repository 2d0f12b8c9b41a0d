package outside

import (
	"context"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/internal/level"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/observed"
)

// mostCalls is how many hooks are called at the same time, over all services.
const mostCalls = 16

// Hooks calls the hooks of instances: once for each (Rollout, Attempt) of an
// order, at most one at a time for an instance, and no longer than the timeout.
// What was called is remembered by this process only: after a restart it is
// called again. It implements control.Hooks; its methods may be called
// concurrently, and return at once.
type Hooks struct {
	web    web
	log    *slog.Logger
	wished level.Level
	slots  chan struct{} // capacity mostCalls: a call holds one

	mu       sync.Mutex
	services map[discovery.Service]map[discovery.InstanceID]*called
}

// called is what is wished of one instance, and how that fares.
type called struct {
	order *desired.HookOrder // nil: nothing is wished
	run   observed.HookRun   // the newest call; zero before the first
	busy  bool               // a goroutine calls, or waits for a slot
}

// due: the order's attempt was not made yet.
func (c *called) due() bool {
	return c.order != nil && (c.run.Rollout != c.order.Rollout || c.run.Attempt < c.order.Attempt)
}

// NewHooks starts nothing; Run does.
func NewHooks(logger *slog.Logger) *Hooks {
	return &Hooks{
		web: newWeb(), log: logger, wished: level.New(), slots: make(chan struct{}, mostCalls),
		services: map[discovery.Service]map[discovery.InstanceID]*called{},
	}
}

// Call replaces the whole map of what is wished for a service. An order that
// leaves it ends no call that runs already; how that fared is remembered until
// orders of another rollout come.
func (h *Hooks) Call(service discovery.Service, orders map[discovery.InstanceID]desired.HookOrder) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.services[service] == nil {
		if len(orders) == 0 {
			return
		}
		h.services[service] = map[discovery.InstanceID]*called{}
	}
	all := h.services[service]
	rollouts := map[string]bool{}
	for id, order := range orders {
		rollouts[order.Rollout] = true
		if all[id] == nil {
			all[id] = &called{}
		}
	}
	for id, c := range all {
		c.order = nil
		if order, ok := orders[id]; ok {
			c.order = &order
		} else if !c.busy && len(orders) > 0 && !rollouts[c.run.Rollout] {
			delete(all, id)
		}
	}
	h.wished.Set()
}

// Runs is the newest call of each instance of the service that had one.
func (h *Hooks) Runs(service discovery.Service) map[discovery.InstanceID]observed.HookRun {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[discovery.InstanceID]observed.HookRun{}
	for id, c := range h.services[service] {
		if c.run.Rollout != "" {
			out[id] = c.run
		}
	}
	return out
}

// Run calls until ctx ends, and gives notice when a call has ended. Then it kills
// the commands that still run; they count as not called.
func (h *Hooks) Run(ctx context.Context, notice func(...discovery.Service)) error {
	var calls sync.WaitGroup
	defer h.web.close()
	defer calls.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.wished:
		}
		h.mu.Lock()
		for _, instances := range h.services {
			for _, c := range instances {
				if !c.busy && c.due() {
					c.busy = true
					calls.Go(func() { h.call(ctx, c, notice) })
				}
			}
		}
		h.mu.Unlock()
	}
}

// call makes the newest call that is due when its turn comes, if any.
func (h *Hooks) call(ctx context.Context, c *called, notice func(...discovery.Service)) {
	select {
	case <-ctx.Done():
		return
	case h.slots <- struct{}{}:
	}
	defer func() { <-h.slots }()
	h.mu.Lock()
	if !c.due() {
		c.busy = false
		h.mu.Unlock()
		return
	}
	order := *c.order
	c.run = observed.HookRun{Rollout: order.Rollout, Attempt: order.Attempt}
	h.mu.Unlock()

	begun := time.Now()
	failure := h.make(ctx, order)
	if ctx.Err() != nil {
		return
	}
	h.mu.Lock()
	c.busy = false
	c.run.Done, c.run.Err, c.run.At = true, failure, time.Now()
	h.mu.Unlock()
	h.log.Info("hook called", "service", order.Service, "instance", order.Instance, "rollout", order.Rollout,
		"attempt", order.Attempt, "took", time.Since(begun), "failure", failure)
	h.wished.Set() // there may be a newer order
	notice(order.Service)
}

// make calls once and says why that failed; empty when it did not.
func (h *Hooks) make(ctx context.Context, o desired.HookOrder) (failure string) {
	ctx, cancel := within(ctx, o.Hook.Within())
	defer cancel()
	var who, said string
	var err error
	if len(o.Hook.Command) > 0 {
		who = filepath.Base(o.Hook.Command[0])
		said, err = execute(ctx, o.Hook.Command, variables(o)...)
	} else {
		who = host(o.Hook.URL)
		said, err = h.web.call(ctx, http.MethodPost, o.Hook.URL, bodyOf(o))
	}
	if err != nil {
		return outcome(who, err, said)
	}
	return ""
}

// notification is what a URL is told.
type notification struct {
	Service  discovery.Service    `json:"service"`
	Instance discovery.InstanceID `json:"instance"`
	Colour   discovery.Colour     `json:"colour"`
	Address  string               `json:"address"`
	Rollout  string               `json:"rollout"`
}

func bodyOf(o desired.HookOrder) notification {
	return notification{Service: o.Service, Instance: o.Instance, Colour: o.Colour, Address: o.Addr.String(), Rollout: o.Rollout}
}

// variables is the same for a command.
func variables(o desired.HookOrder) []string {
	return []string{
		"SLUICE_SERVICE=" + string(o.Service), "SLUICE_INSTANCE=" + string(o.Instance), "SLUICE_COLOUR=" + string(o.Colour),
		"SLUICE_ADDRESS=" + o.Addr.String(), "SLUICE_ROLLOUT=" + o.Rollout,
	}
}
