package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/units"
)

func (c *cli) pace() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "pace CLOSE/EVERY [SERVICE]",
		Short:             "Change the cap of the running rollout",
		Example:           "  rolloutctl pace 500/3s",
		Args:              c.andService("the pace, such as 500/3s", func(word string) error { _, err := units.ParseFunnel(word); return err }),
		ValidArgsFunction: c.words(nothing, c.knownServices),
		RunE: func(cmd *cobra.Command, args []string) error {
			funnel, err := units.ParseFunnel(args[0])
			if err != nil {
				return &usageError{err.Error()}
			}
			return c.command(cmd, func(ctx context.Context, client *api.Client, s discovery.Service) (rollout.Answer, error) {
				return client.SetPace(ctx, s, funnel)
			})
		},
	}
	c.addMessage(cmd)
	return cmd
}
