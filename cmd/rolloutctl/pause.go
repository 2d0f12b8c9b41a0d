package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
)

func (c *cli) pause() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pause [SERVICE]",
		Short: "Close nothing more until resume; the routing stays as it is",
		Args:  c.maybeService, ValidArgsFunction: c.words(c.knownServices),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.command(cmd, func(ctx context.Context, client *api.Client, s discovery.Service) (rollout.Answer, error) {
				return client.Pause(ctx, s)
			})
		},
	}
	c.addMessage(cmd)
	return cmd
}
