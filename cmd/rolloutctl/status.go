package main

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/api"
)

func (c *cli) status() *cobra.Command {
	return &cobra.Command{
		Use:   "status [SERVICE]",
		Short: "Show what every service, or one, is doing and why",
		Args:  c.maybeService, ValidArgsFunction: c.words(c.knownServices),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			if c.service != "" {
				st, err := client.Service(cmd.Context(), discovery.Service(c.service))
				if err != nil {
					return err
				}
				return c.printStatus(st, time.Now())
			}
			world, err := client.Status(cmd.Context())
			switch {
			case err != nil:
				return err
			case c.json():
				return c.printJSON(world)
			case len(world.Services) == 0:
				return c.printf("%s\n", noService)
			case len(world.Services) == 1:
				return c.printStatus(world.Services[0], world.At)
			}
			return table(c.out, summary(world))
		},
	}
}

// summary is one row per service.
func summary(w api.World) [][]string {
	rows := [][]string{{"SERVICE", "PHASE", "LIVE", "ROLLOUT", "HELD", "EVICTED", "OUTSTANDING", "ETA", "WHY"}}
	for _, s := range w.Services {
		row := []string{string(s.Service), phase(s), live(s), "", "", "", "", "", s.Reason.Text}
		if r := s.Rollout; r != nil {
			row[3] = fmt.Sprintf("%s to %s", r.ID, r.To)
			row[4], row[5], row[6] = number(r.Held), fmt.Sprint(r.Evicted), outstanding(*r)
			if r.ETA != nil {
				row[7] = moment(*r.ETA, w.At)
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// phase is the phase and what stands beside it.
func phase(s api.Status) string {
	text := string(s.Phase)
	if s.Rollout != nil && s.Rollout.Aborting {
		text += " (" + string(s.Rollout.Phase) + ")"
	}
	if s.Paused {
		text += ", paused"
	}
	if s.Retired {
		text += ", retired"
	}
	return text
}

func (c *cli) printStatus(s api.Status, now time.Time) error {
	if c.json() {
		return c.printJSON(s)
	}
	var b bytes.Buffer
	rows := [][2]string{{"service", string(s.Service)}, {"phase", phase(s)}, {"live", live(s)}, {"why", s.Reason.Text}}
	if s.Rollout != nil {
		rows = append(rows, rolloutFacts(s, now)...)
	} else {
		rows = append(rows, [2]string{"pace", s.Policy.Funnel.String()})
	}
	if l := s.Last; l != nil {
		rows = append(rows, [2]string{"last rollout", fmt.Sprintf("%s to %s, %s at %s", l.ID, l.To, l.Outcome, moment(l.Ended, now))})
	}
	rows = append(rows, [2]string{"proxies", fmt.Sprintf("%d connected, %d confirmed", s.Proxies.Connected, s.Proxies.Confirmed)})
	for _, trouble := range troubles(s, now) {
		rows = append(rows, [2]string{"trouble", trouble})
	}
	_ = facts(&b, rows) // a buffer takes everything
	b.WriteByte('\n')
	colours := colourRows(s, true)
	colours[0] = append(colours[0], "REPORTED") // watch has no room for it
	for i, col := range s.Colours {
		colours[i+1] = append(colours[i+1], number(col.Reported))
	}
	_ = table(&b, colours)
	b.WriteByte('\n')
	_ = table(&b, instanceRows(s.Instances, true))
	_, err := c.out.Write(b.Bytes())
	return err
}

func rolloutFacts(s api.Status, now time.Time) [][2]string {
	r := *s.Rollout
	id := fmt.Sprintf("%s, %s to %s, started %s", r.ID, r.From, r.To, moment(r.Started, now))
	if r.Forced {
		id += ", forced"
	}
	pace, turn := paced(r), batch(r)
	if r.Pace.Why != "" {
		pace += ": " + r.Pace.Why
	}
	if ids := inBatch(s); ids != "" {
		turn += ": " + ids
	}
	rows := [][2]string{
		{"alarm", r.Alarm},
		{"rollout", id},
		{"pace", pace},
		{"batch", turn},
		{"spill", spill(r)},
		{"held", held(r)},
		{"evicted", fmt.Sprint(r.Evicted)},
		{"lost", optional(int(r.Lost))},
		{"returned", about(r.Returned, r.Exact, 0)},
		{"outstanding", about(r.Outstanding, r.Exact, r.AtLeast)},
		{"window", window(r)},
		{"never back", number(r.NeverBack)},
	}
	rows = append(rows, gateFacts(r.Gates, now)...)
	rows = append(rows, hookFacts(r.Hooks, now)...)
	rows = append(rows, [2]string{"step", fmt.Sprint(r.Step)})
	if r.NextStepAt != nil {
		rows = append(rows, [2]string{"next step", ahead(r.NextStepAt, now)})
	}
	return append(rows, [2]string{"eta", ahead(r.ETA, now)}, [2]string{"deadline", deadline(r, now)}, [2]string{"left behind", strings.Join(r.LeftBehind, ", ")})
}

// troubles are the sentences that an operator should not miss.
func troubles(s api.Status, now time.Time) []string {
	var all []string
	if s.Discovery.Error != "" {
		all = append(all, "discovery: "+s.Discovery.Error)
	}
	if s.Discovery.Suspect != "" {
		all = append(all, "discovery: "+s.Discovery.Suspect)
	}
	if s.Proxies.Unpublished != "" {
		all = append(all, "not published: "+s.Proxies.Unpublished)
	}
	for _, n := range s.Proxies.Nacks {
		all = append(all, fmt.Sprintf("proxy %s refused: %s", n.Node, n.Message))
	}
	for _, l := range s.LeftOut {
		all = append(all, fmt.Sprintf("left out %s: %s", l.ID, l.Reason))
	}
	for _, n := range s.Notes {
		all = append(all, fmt.Sprintf("instance %s: %s", n.ID, n.Text))
	}
	for _, i := range s.Instances {
		if i.Error != "" {
			all = append(all, fmt.Sprintf("instance %s: %s", i.ID, i.Error))
		}
		if d := i.Differs; d != nil {
			all = append(all, fmt.Sprintf("instance %s says that it holds %d, the proxies report %d, since %s", i.ID, d.Said, d.Reported, moment(d.Since, now)))
		}
	}
	silent := map[string]bool{}
	for _, col := range s.Colours {
		for _, node := range col.Unreported {
			silent[node] = true
		}
	}
	if len(silent) > 0 {
		all = append(all, fmt.Sprintf("no counters from %s: nothing is proven empty without them (a bootstrap from before counters has to be made anew)",
			strings.Join(slices.Sorted(maps.Keys(silent)), ", ")))
	}
	return all
}

// colourRows is one row per colour. wide: also how full they are, where that is
// known.
func colourRows(s api.Status, wide bool) [][]string {
	rows := [][]string{{"COLOUR", "SHARE", "HEALTHY", "ACTIVE", "NEW/S"}}
	bounded := false
	for _, col := range s.Colours {
		bounded = bounded || col.Room != nil
		rows = append(rows, []string{string(col.Colour), col.Weight.String(), fmt.Sprintf("%d of %d", col.Healthy, col.Instances), number(col.Active), rate(col.NewPerSecond)})
	}
	if wide && bounded {
		rows[0] = append(rows[0], "FILLED")
		for i, col := range s.Colours {
			rows[i+1] = append(rows[i+1], filled(col.Room))
		}
	}
	return rows
}
