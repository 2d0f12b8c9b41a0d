package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// appears is how long an accepted rollout may take to show in the status.
const appears = 30 * time.Second

// await follows a rollout to its end. An end other than want is an error, and so
// is an interruption, which leaves the rollout going.
func (c *cli) await(ctx context.Context, client *api.Client, service discovery.Service, id string, want state.Outcome) error {
	v := c.newViewer(true)
	record, err := c.ending(ctx, client, service, id, v)
	v.close()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("no longer waiting; rollout %s goes on: rolloutctl watch shows it, rolloutctl abort ends it", id)
	case err != nil:
		return err
	case record.Outcome == want:
	case record.Outcome == state.Superseded:
		return fmt.Errorf("rollout %s was superseded by the promotion of a newer release; rolloutctl watch shows it", id)
	case want == state.Done:
		return fmt.Errorf("rollout %s was aborted: %s is live", id, record.From)
	default:
		return fmt.Errorf("rollout %s was done before it could go back: %s is live", id, record.To)
	}
	if c.json() {
		return c.printJSON(record)
	}
	live := record.To
	if record.Outcome == state.Aborted {
		live = record.From
	}
	outcome := fmt.Sprintf("%s: rollout %s is %s: %s is live, %d evicted", service, id, record.Outcome, live, record.Evicted)
	if record.Lost > 0 {
		outcome += fmt.Sprintf(", %d lost", record.Lost)
	}
	if record.Returned != nil {
		outcome += ", " + about(record.Returned, !record.Estimated, 0) + " returned"
	}
	if record.NeverBack != nil || record.NotBack > 0 {
		outcome += ", " + about(record.NeverBack, !record.Estimated, record.NotBack) + " never back"
	}
	return c.printf("%s, in %s\n", outcome, short(record.Ended.Sub(record.Started)))
}

// ending shows the rollout until it is finished and returns its record.
func (c *cli) ending(ctx context.Context, client *api.Client, service discovery.Service, id string, v viewer) (state.Record, error) {
	var appeared bool
	var first time.Time
	for world, err := range follow(ctx, client, service, true, v.notice) {
		if err != nil {
			return state.Record{}, err
		}
		if first.IsZero() {
			first = world.At
		}
		if len(world.Services) != 1 {
			return state.Record{}, fmt.Errorf("service %s is gone, and with it what became of rollout %s", service, id)
		}
		if err := v.show(world); err != nil {
			return state.Record{}, err
		}
		st := world.Services[0]
		if st.Rollout != nil && st.Rollout.ID == id {
			appeared = true
			continue
		}
		if st.Last != nil && st.Last.ID == id {
			return *st.Last, nil
		}
		// Not under way and not the last one: it ended before others, or the
		// answer was faster than the view.
		past, err := client.History(ctx, service)
		if err != nil {
			continue // the watch will say what is wrong
		}
		if i := slices.IndexFunc(past, func(r state.Record) bool { return r.ID == id }); i >= 0 {
			return past[i], nil
		}
		if appeared || world.At.Sub(first) > appears {
			return state.Record{}, fmt.Errorf("rollout %s is neither under way nor remembered; rolloutctl history shows what is", id)
		}
	}
	return state.Record{}, context.Cause(ctx)
}
