package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/units"
)

var colours = []cobra.Completion{"blue", "green"}

func (c *cli) plan() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "plan COLOUR [SERVICE]",
		Short:             "Compute what promoting a colour would do, and change nothing",
		Example:           "  rolloutctl plan green --close 500 --every 3s",
		Args:              c.colourAndService("the colour: blue or green"),
		ValidArgsFunction: c.words(c.knownColours, c.knownServices),
	}
	over := addOverrides(cmd)
	check := cmd.Flags().Bool("check", false, "exit 1 when the plan has a problem")
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
			err = c.printJSON(plan)
		default:
			err = c.printPlan(plan)
		}
		if err == nil && *check && len(plan.Problems) > 0 {
			err = fmt.Errorf("the plan has %s", count(len(plan.Problems), "problem"))
		}
		return err
	}
	return cmd
}

// loopRows are what of the closed loop the promotion would use.
func loopRows(p rollout.Plan) [][2]string {
	var rows [][2]string
	switch {
	case p.Window > 0 && p.Policy.Window == units.Auto:
		rows = append(rows, [2]string{"window", fmt.Sprintf("auto: at most %d evicted clients on their way, more where they take long to return", p.Window)})
	case p.Policy.Window > 0:
		rows = append(rows, [2]string{"window", fmt.Sprintf("at most %d evicted clients on their way", p.Policy.Window)})
	}
	if n := p.Policy.Notice; n > 0 {
		rows = append(rows, [2]string{"notice", fmt.Sprintf("clients are asked first and have %s; at most %d are connected twice at once", n, p.Doubled)})
	}
	if end := p.Policy.Deadline; end > 0 {
		deadline := end.String()
		if p.Policy.Pressure == policy.Hurry {
			deadline += fmt.Sprintf(", hurrying up to %d/%s", p.Policy.HurryCap, p.Policy.Funnel.Every)
		}
		rows = append(rows, [2]string{"deadline", deadline})
	}
	for _, g := range p.Gates {
		rows = append(rows, [2]string{"gate", gateRow(g)})
	}
	if s := p.Policy.Stagger; !s.Instances.IsZero() {
		stagger := fmt.Sprintf("%s of the %s instances at a time", s.Instances, p.From)
		if s.InPlace {
			stagger += ", in place"
		}
		if s.Soak > 0 {
			stagger += fmt.Sprintf(", %s between", s.Soak)
		}
		rows = append(rows, [2]string{"stagger", stagger})
	}
	for i, b := range p.Batches {
		rows = append(rows, [2]string{fmt.Sprintf("batch %d", i+1), fmt.Sprintf("%s: %d connections in %s", some(b.Instances), b.Connections, b.Takes)})
	}
	return rows
}

// gateRow is what a gate said, and when it will be asked.
func gateRow(g rollout.GateAnswer) string {
	when := ""
	for i, at := range g.At {
		when += map[bool]string{true: " (asked at ", false: ", "}[i == 0] + string(at)
	}
	if when != "" {
		when += ")"
	}
	return strings.TrimPrefix(g.Text, "gate ") + when
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
	rows = append(rows, loopRows(p)...)
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
