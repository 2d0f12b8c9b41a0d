package main

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
)

func (c *cli) instances() *cobra.Command {
	return &cobra.Command{
		Use:   "instances [SERVICE]",
		Short: "List the instances, what they hold and what they were told",
		Args:  c.maybeService, ValidArgsFunction: c.words(c.knownServices),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			all, err := client.Instances(cmd.Context())
			if err != nil {
				return err
			}
			if c.service != "" {
				if all = slices.DeleteFunc(all, func(s api.ServiceInstances) bool { return s.Service != discovery.Service(c.service) }); len(all) == 0 {
					return &rollout.Refusal{Code: rollout.UnknownService, Text: fmt.Sprintf("no service is called %q; rolloutctl status lists them", c.service)}
				}
			}
			if c.json() {
				return c.printJSON(all)
			}
			return c.printInstances(all, time.Now())
		},
	}
}

func (c *cli) printInstances(all []api.ServiceInstances, now time.Time) error {
	var b bytes.Buffer
	rows := [][]string{{"SERVICE", "INSTANCE", "COLOUR", "ADDRESS", "VERSION", "HEALTH", "STATE", "HEARD", "HELD", "CEILING", "CAPACITY", "EVICTED", "ACCEPTED", "RETURNED", "REPORTED", "NEW/S", "REFUSED"}}
	for _, s := range all {
		for _, i := range s.Instances {
			reported, heard := reportedCells(i.Reported), none
			if i.Heard != nil {
				heard = moment(*i.Heard, now)
			}
			rows = append(rows, []string{string(s.Service), string(i.ID), string(i.Colour), i.Addr.String(), i.Version, health(i), i.State, heard,
				number(i.Held), number(i.Ceiling), optional(i.Capacity), number(i.Evicted), number(i.Accepted), number(i.Returned),
				reported[0], reported[1], reported[2]})
		}
	}
	_ = table(&b, rows) // a buffer takes everything
	for _, s := range all {
		for _, i := range s.Instances {
			if i.Error != "" {
				fmt.Fprintf(&b, "%s: instance %s: %s\n", s.Service, clean(string(i.ID)), clean(i.Error))
			}
		}
		for _, l := range s.LeftOut {
			fmt.Fprintf(&b, "%s: left out %s: %s\n", s.Service, clean(string(l.ID)), clean(l.Reason))
		}
	}
	_, err := c.out.Write(b.Bytes())
	return err
}

// reportedCells is what the proxies report: held, new per second, refused.
func reportedCells(r *api.Reported) [3]string {
	if r == nil {
		return [3]string{none, none, none}
	}
	return [3]string{fmt.Sprint(r.Held), rate(&r.PerSecond), fmt.Sprint(r.Refused)}
}

// instanceRows is the short form, with what the current rollout evicted. wide:
// also the batch, where there are any.
func instanceRows(instances []api.Instance, wide bool) [][]string {
	rows := [][]string{{"INSTANCE", "COLOUR", "HEALTH", "STATE", "HELD", "CEILING", "EVICTED"}}
	staggered := false
	for _, i := range instances {
		evicted := none
		if i.Evicted != nil {
			evicted = number(&i.EvictedByRollout)
		}
		staggered = staggered || i.Batch > 0
		rows = append(rows, []string{string(i.ID), string(i.Colour), health(i), i.State, number(i.Held), number(i.Ceiling), evicted})
	}
	if wide && staggered {
		rows[0] = append(rows[0], "BATCH")
		for k, i := range instances {
			rows[k+1] = append(rows[k+1], optional(i.Batch))
		}
	}
	return rows
}

func health(i api.Instance) string {
	if i.Departed {
		return "departed"
	}
	return string(i.Health)
}
