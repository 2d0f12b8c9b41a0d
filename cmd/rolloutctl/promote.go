package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/state"
)

func (c *cli) promote() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "promote COLOUR [SERVICE]",
		Short: "Move the service to a colour, at the pace of its policy",
		Example: `  rolloutctl promote green --wait
  rolloutctl promote green --canary 5% --soak 2m --close 500 --every 3s
  rolloutctl promote green --stagger 25% --stagger-soak 2m --window 3000 --deadline 30m`,
		Args:              c.colourAndService("the colour: blue or green"),
		ValidArgsFunction: c.words(c.knownColours, c.knownServices),
	}
	over := addOverrides(cmd)
	force := cmd.Flags().Bool("force", false, "promote although the plan has problems; this is recorded")
	wait := addWait(cmd)
	c.addMessage(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := wait.check(); err != nil {
			return err
		}
		client, service, err := c.dial(cmd.Context())
		if err != nil {
			return err
		}
		return c.begin(cmd.Context(), client, service, api.Promotion{Target: args[0], Overrides: over.given(), Force: *force}, *wait)
	}
	return cmd
}

// begin promotes and, if it is to wait, follows the rollout to its end.
func (c *cli) begin(ctx context.Context, client *api.Client, service discovery.Service, p api.Promotion, w waiting) error {
	answer, err := client.Promote(ctx, service, p)
	if err != nil {
		return err
	}
	if err := c.answer(answer); err != nil || !w.on || answer.Rollout == "" {
		return err
	}
	return c.await(ctx, client, service, answer.Rollout, state.Done, w)
}
