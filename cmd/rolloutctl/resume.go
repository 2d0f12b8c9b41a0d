package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
)

func (c *cli) resume() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "resume [SERVICE]",
		Short: "End a pause",
		Args:  c.maybeService, ValidArgsFunction: c.words(c.knownServices),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.command(cmd, func(ctx context.Context, client *api.Client, s discovery.Service) (rollout.Answer, error) {
				return client.Resume(ctx, s)
			})
		},
	}
	c.addMessage(cmd)
	return cmd
}
