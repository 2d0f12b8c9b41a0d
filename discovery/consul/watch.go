package consul

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-proxy/sluice/discovery"
)

const (
	// wait is how long Consul may hold a query that has no news. A Consul that
	// came back with lower indexes behind the same agent goes unnoticed that long.
	wait = 30 * time.Second
	// patience is how much longer than it may take an answer is waited for.
	patience = 10 * time.Second
	// noise is how soon an answer without news comes when the index moves for
	// reasons that do not concern the service.
	noise = 50 * time.Millisecond
)

var (
	afterError = backoff{first: 100 * time.Millisecond, most: 10 * time.Second}
	afterNoise = backoff{first: 4 * time.Millisecond, most: 250 * time.Millisecond}
)

// report is what a watch has to say: the service's fleet, or why it has none yet.
type report struct {
	service discovery.Service
	fleet   *discovery.Fleet
	why     string
}

// watch follows one service. Its run owns everything in it.
type watch struct {
	service discovery.Service
	name    string // in Consul
	tags    tags
	hold    time.Duration
	health  *api.Health
	token   func() string // empty: the client's

	index uint64 // of the last answer; 0 asks without waiting
	known bool   // fleet has been read, by this watch or one before it
	fleet discovery.Fleet
	doubt discovery.Doubt
}

// run reports each change until ctx ends.
func (w *watch) run(ctx context.Context, reports chan<- report) {
	failed, noisy := 0, 0 // in a row
	for {
		asked := time.Now()
		fleet, err := w.read(ctx)
		if ctx.Err() != nil {
			return // what failed because we end is no news
		}
		var r report
		switch {
		case err != nil:
			// Whatever answers next may count otherwise: start without an index.
			w.index = 0
			r = w.failure(err)
		default:
			r = report{service: w.service, fleet: &fleet}
			failed = 0
		}
		news := r.fleet == nil || !w.known || !w.fleet.Equal(*r.fleet)
		if r.fleet != nil {
			w.fleet, w.known = *r.fleet, true
		}
		if news {
			select {
			case reports <- r:
			case <-ctx.Done():
				return
			}
		}
		switch {
		case err != nil:
			afterError.pause(ctx, failed)
			failed++
		case news || time.Since(asked) >= noise:
			noisy = 0
		default:
			afterNoise.pause(ctx, noisy)
			noisy++
		}
	}
}

// failure keeps the last good fleet, if there is one, and says why it is old.
func (w *watch) failure(err error) report {
	why := fmt.Sprintf("Consul cannot be read: %s", reason(err))
	if !w.known {
		return report{service: w.service, why: why}
	}
	old := w.fleet
	old.Err = why + "; the last good answer is shown"
	return report{service: w.service, fleet: &old}
}

// read asks once, waiting for news where there is an index to wait from, and
// weighs the answer against what was believed before.
func (w *watch) read(ctx context.Context) (discovery.Fleet, error) {
	q := api.QueryOptions{WaitIndex: w.index, WaitTime: wait, Token: w.token()}
	if due, ok := w.doubt.Due(w.hold); ok {
		if left := time.Until(due); left <= 0 {
			q.RequireConsistent, q.WaitIndex = true, 0
		} else {
			q.WaitTime = min(wait, max(left, time.Millisecond))
		}
	}
	limit := patience
	if q.WaitIndex > 0 {
		limit += q.WaitTime + q.WaitTime/16 // Consul adds up to a sixteenth
	} else {
		q.WaitTime = 0
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it did not answer within %s", limit))
	defer cancel()
	entries, meta, err := w.health.Service(w.name, "", false, q.WithContext(ctx))
	switch {
	case err != nil && ctx.Err() != nil:
		return discovery.Fleet{}, context.Cause(ctx)
	case err != nil:
		return discovery.Fleet{}, err
	case meta.LastIndex == 0:
		return discovery.Fleet{}, errors.New("the answer has no index; check that the address is a Consul's")
	case len(entries) == 0 && meta.ResultsFilteredByACLs:
		return discovery.Fleet{}, fmt.Errorf("the token may not see %s; give it service:read on it and node:read", w.name)
	case meta.LastIndex < w.index:
		w.index = 0
	default:
		w.index = meta.LastIndex
	}
	var fleet discovery.Fleet
	fleet, w.doubt = discovery.Believe(w.fleet, discovery.Reading{
		Registry: "Consul", Service: w.service, Fleet: translate(entries, w.tags),
		Consistent: q.RequireConsistent, At: time.Now(),
	}, w.doubt, w.hold)
	return fleet, nil
}

// reason says what went wrong in words that stay the same while it goes on
// wrong: without request URLs and the ports of our own end.
func reason(err error) string {
	if status, ok := errors.AsType[api.StatusError](err); ok {
		text := strings.Join(strings.Fields(status.Body), " ")
		return strings.TrimSuffix(fmt.Sprintf("it answered %d %s: %.200s", status.Code, http.StatusText(status.Code), text), ": ")
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		if op.Addr == nil {
			return op.Err.Error()
		}
		return fmt.Sprintf("%s %s: %s", op.Op, op.Addr, op.Err)
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err.Error()
	}
	return err.Error()
}

// backoff spreads retries: full jitter under a limit that doubles.
type backoff struct{ first, most time.Duration }

// pause waits somewhere between 0 and first·2ⁿ, at most most, or until ctx ends.
func (b backoff) pause(ctx context.Context, n int) {
	limit := min(b.most, b.first<<min(n, 20))
	select {
	case <-time.After(rand.N(limit)):
	case <-ctx.Done():
	}
}
