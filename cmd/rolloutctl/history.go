package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/rollout/state"
)

func (c *cli) history() *cobra.Command {
	return &cobra.Command{
		Use:   "history [ROLLOUT]",
		Short: "List the finished rollouts, or tell the story of one",
		Args:  atMostOne("the id of a rollout"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, service, err := c.dial(cmd.Context())
			if err != nil {
				return err
			}
			records, err := client.History(cmd.Context(), service)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				if records = slices.DeleteFunc(records, func(r state.Record) bool { return r.ID != args[0] }); len(records) == 0 {
					return fmt.Errorf("no finished rollout of %s is called %q; rolloutctl history lists them", service, args[0])
				}
			}
			switch {
			case c.json():
				return c.printJSON(records)
			case len(records) == 0:
				return c.printf("no rollout of %s has finished yet\n", service)
			}
			return c.printHistory(records, len(args) == 1)
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
