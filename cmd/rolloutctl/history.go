package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/state"
)

func (c *cli) history() *cobra.Command {
	return &cobra.Command{
		Use:   "history [SERVICE] [ROLLOUT]",
		Short: "List the finished rollouts, or tell the story of one",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 2 {
				return fmt.Errorf("%d arguments are given; give at most a service and the id of a rollout", len(args))
			}
			return nil
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) == 1 {
				c.service, args = args[0], nil
			}
			return c.words(c.knownRollouts)(cmd, args, word)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := c.asked(cmd.Context(), args)
			if err != nil {
				return err
			}
			client, service, err := c.dial(cmd.Context())
			if err != nil {
				return err
			}
			records, err := client.History(cmd.Context(), service)
			if err != nil {
				return err
			}
			if id != "" {
				if records = slices.DeleteFunc(records, func(r state.Record) bool { return r.ID != id }); len(records) == 0 {
					return fmt.Errorf("no finished rollout of %s is called %q; rolloutctl history lists them", service, id)
				}
			}
			switch {
			case c.json():
				return c.printJSON(records)
			case len(records) == 0:
				return c.printf("no rollout of %s has finished yet\n", service)
			}
			return c.printHistory(records, id != "")
		},
	}
}

func (c *cli) printHistory(records []state.Record, story bool) error {
	rows := [][]string{{"ROLLOUT", "FROM", "TO", "OUTCOME", "STARTED", "TOOK", "EVICTED", "LOST", "RETURNED", "NEVER BACK", "LEFT BEHIND"}}
	for _, r := range records {
		outcome := string(r.Outcome)
		if r.Forced {
			outcome += ", forced"
		}
		rows = append(rows, []string{r.ID, string(r.From), string(r.To), outcome, moment(r.Started, time.Time{}), short(r.Ended.Sub(r.Started)),
			fmt.Sprint(r.Evicted), fmt.Sprint(r.Lost), about(r.Returned, !r.Estimated, 0), about(r.NeverBack, !r.Estimated, r.NotBack), strings.Join(r.LeftBehind, ", ")})
	}
	var b bytes.Buffer
	_ = table(&b, rows) // a buffer takes everything
	if story {
		b.WriteByte('\n')
		for _, e := range records[0].Events {
			fmt.Fprintf(&b, "%s  %s\n", moment(e.At, time.Time{}), clean(e.Text))
		}
		if n := records[0].Omitted; n > 0 {
			fmt.Fprintf(&b, "%d events in the middle are not remembered\n", n)
		}
	}
	_, err := c.out.Write(b.Bytes())
	return err
}

// asked sorts out what history is asked for: a service, a rollout, or a rollout of
// a service. An id without its service belongs to the one that it is named after.
func (c *cli) asked(ctx context.Context, args []string) (id string, err error) {
	switch {
	case len(args) == 2:
		return args[1], c.named(args[:1])
	case len(args) == 0 || c.service != "":
		return strings.Join(args, ""), nil
	}
	client, err := c.client()
	if err != nil {
		return "", err
	}
	world, err := client.Status(ctx)
	if err != nil {
		return "", err
	}
	for _, name := range []string{args[0], args[0][:max(0, strings.LastIndexByte(args[0], '-'))]} {
		if slices.ContainsFunc(world.Services, func(s api.Status) bool { return string(s.Service) == name }) {
			c.service = name
			break
		}
	}
	if c.service == args[0] {
		return "", nil
	}
	return args[0], nil
}
