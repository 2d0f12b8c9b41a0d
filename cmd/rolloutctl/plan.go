package main

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
)

var colours = []cobra.Completion{"blue", "green"}

func (c *cli) plan() *cobra.Command {
	cmd := &cobra.Command{
		Use:       "plan COLOUR",
		Short:     "Compute what promoting a colour would do, and change nothing",
		Example:   "  rolloutctl plan green --close 500 --every 3s",
		Args:      one("the colour: blue or green"),
		ValidArgs: colours,
	}
	over := addOverrides(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, service, err := c.dial(cmd.Context())
		if err != nil {
			return err
		}
		plan, err := client.Plan(cmd.Context(), service, api.Promotion{Target: args[0], Overrides: over.given()})
		switch {
		case err != nil:
			return err
		case c.json():
			return c.printJSON(plan)
		}
		return c.printPlan(plan)
	}
	return cmd
}

func (c *cli) printPlan(p rollout.Plan) error {
	rows := [][2]string{
		{"service", string(p.Service)},
		{"from", string(p.From)},
		{"to", string(p.To)},
		{"connections", strconv.Itoa(p.Connections)},
		{"pace", fmt.Sprintf("%s, at most %.1f a second", p.Policy.Funnel, p.PeakPerSecond)},
		{"steps", strconv.Itoa(p.Steps)},
		{"takes", p.Takes.String()},
		{"room", number(p.Room)},
	}
	if p.Policy.Canary > 0 {
		rows = append(rows, [2]string{"canary", fmt.Sprintf("%s for %s", p.Policy.Canary, p.Policy.Soak)})
	}
	if p.Policy.Grace > 0 {
		rows = append(rows, [2]string{"grace", p.Policy.Grace.String()})
	}
	for _, n := range p.Notes {
		rows = append(rows, [2]string{"note", n})
	}
	for _, problem := range p.Problems {
		rows = append(rows, [2]string{"problem", problem})
	}
	var b bytes.Buffer
	_ = facts(&b, rows) // a buffer takes everything
	if len(p.Problems) > 0 {
		b.WriteString("promote would refuse this; --force does it all the same\n")
	}
	_, err := c.out.Write(b.Bytes())
	return err
}
