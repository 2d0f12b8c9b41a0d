package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// appears is how long an accepted rollout may take to show in the status.
const appears = 30 * time.Second

// waiting is whether and how a command follows its rollout.
type waiting struct {
	on      bool
	timeout units.Duration // 0: to the end
	summary string         // the file that gets the outcome; empty: none
}

func addWait(cmd *cobra.Command) *waiting {
	w := &waiting{}
	cmd.Flags().BoolVar(&w.on, "wait", false, "follow the rollout to its end and exit by its outcome")
	cmd.Flags().Var(text{&w.timeout}, "timeout", "with --wait: `DURATION` after which to exit 1; the rollout goes on")
	cmd.Flags().StringVar(&w.summary, "summary", "", "with --wait: `FILE` to append the outcome to, in Markdown, such as \"$GITHUB_STEP_SUMMARY\"")
	return w
}

func (w *waiting) check() error {
	switch {
	case w.timeout < 0:
		return usagef("--timeout is %s; it must be above 0", w.timeout)
	case !w.on && w.timeout > 0:
		return usagef("--timeout bounds --wait; give both")
	case !w.on && w.summary != "":
		return usagef("--summary tells the outcome, which needs --wait; give both")
	}
	return nil
}

// await follows a rollout to its end. An end other than want is an error, and so
// is an interruption, which leaves the rollout going.
func (c *cli) await(ctx context.Context, client *api.Client, service discovery.Service, id string, want state.Outcome, w waiting) error {
	v := c.newViewer(true)
	following, stop := ctx, func() {}
	if w.timeout > 0 {
		following, stop = context.WithTimeout(ctx, w.timeout.D())
	}
	defer stop()
	record, err := c.ending(following, client, service, id, v)
	v.close()
	late := following.Err() != nil && ctx.Err() == nil
	if w.summary != "" && (err == nil || late) {
		if err := c.summarize(ctx, client, service, id, record, w); err != nil {
			return err
		}
	}
	switch {
	case late:
		return fmt.Errorf("rollout %s has not ended within %s and goes on: rolloutctl watch shows it, rolloutctl abort ends it", id, w.timeout)
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
