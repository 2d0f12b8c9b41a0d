package control

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// slow is how long a decision may be on its way to the store before the view says
// that it waits for the store.
const slow = 250 * time.Millisecond

var errSlow = errors.New("the next state is being stored, and the store has given no answer yet; nothing is done before it has")

// waiting says why nothing new is done, and what else is wrong: the store and discovery
// may be the same Consul.
func waiting(err error, seen observed.Seen) rollout.Reason {
	text := "waiting: " + err.Error()
	if why := cmp.Or(seen.Fleet.Err, seen.Fleet.Suspect); why != "" {
		text += "; besides: " + why
	}
	return rollout.Reason{Code: rollout.StoreFailing, Text: text}
}

// write is a state on its way to the store.
type write struct {
	next    state.State
	command *request // that decided it; nil: Step did
}

// written is how a write ended.
type written struct {
	service discovery.Service
	stored  state.Stored
	err     error
}

// reloaded is what was stored when it was read again, for the services that were in
// doubt then: how many writes of each had begun.
type reloaded struct {
	all    map[discovery.Service]state.Stored
	err    error
	writes map[discovery.Service]int
}

// begin stores the next state aside. Nothing of it shows before that has succeeded.
func (c *Controller) begin(ctx context.Context, name discovery.Service, next state.State, command *request) {
	run := c.running[name]
	run.write = &write{next: next, command: command}
	run.writes++
	run.doubt = false
	by := time.Now().Add(rollout.StorePatience)
	if command != nil {
		by = command.by
	}
	old := run.stored
	c.group.Go(func() {
		bounded, cancel := context.WithDeadline(ctx, by)
		defer cancel()
		data, err := state.Encode(next)
		var stored state.Stored
		if err == nil {
			stored, err = c.ports.Store.Replace(bounded, name, old, data)
		}
		c.mu.Lock()
		c.news.writes = append(c.news.writes, written{name, stored, err})
		c.mu.Unlock()
		c.notices.Set()
	})
}

// conclude takes over how writes ended. The services are looked at again: what was
// decided about the state before is decided again about the one that is stored.
func (c *Controller) conclude(ctx context.Context, n news, w world) {
	for _, ended := range n.writes {
		run := c.running[ended.service]
		was := run.write
		run.write = nil
		w.due[ended.service] = true
		if ended.err != nil {
			run.failure, run.retry, run.doubt = rollout.Unstored(ended.err), w.now.Add(retryAfter), true
			if was.command != nil {
				was.command.reply <- reply{err: rollout.RefuseUnstored(ended.service, run.failure)}
			}
			continue
		}
		run.state, run.stored, run.known = was.next, ended.stored, true
		run.failure, run.retry = nil, time.Time{}
		if was.command != nil {
			run.answers = append(run.answers, was.command)
			c.ports.Logger.Info("command", "service", ended.service, "answer", was.command.answer.Text)
		}
	}
	if n.reload != nil {
		c.reloading = false
		c.adopt(*n.reload, w)
	}
	c.reload(ctx)
}

// reload reads again what is stored, once for all services whose write failed: it may
// be another state now, even the one that failed.
func (c *Controller) reload(ctx context.Context) {
	if c.reloading {
		return
	}
	doubted := map[discovery.Service]int{}
	for name, run := range c.running {
		if run.doubt {
			doubted[name] = run.writes
			run.doubt = false
		}
	}
	if len(doubted) == 0 {
		return
	}
	c.reloading = true
	c.group.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, rollout.StorePatience)
		defer cancel()
		all, err := c.ports.Store.Load(ctx)
		c.mu.Lock()
		c.news.reload = &reloaded{all, err, doubted}
		c.mu.Unlock()
		c.notices.Set()
	})
}

// adopt takes over what is stored of the services that were in doubt, but for those
// that were written to since. If there is nothing any more, as in a Consul that was
// started empty, what is remembered here still holds and is stored anew, unless
// somebody else is faster.
func (c *Controller) adopt(r reloaded, w world) {
	if r.err != nil {
		return // the next write fails, too, or says that all is well
	}
	for name, writes := range r.writes {
		run := c.running[name]
		if run.writes != writes {
			continue
		}
		w.due[name] = true
		stored, ok := r.all[name]
		if !ok {
			if run.stored.Version != "" {
				c.ports.Logger.Warn("the stored state is gone and is stored anew", "service", name)
			}
			run.stored = state.Stored{}
			continue
		}
		if s, err := state.DecodeOf(name, stored.Data); err == nil {
			run.state, run.stored, run.known = s.Resumed(w.now), stored, true
		}
	}
}
