package main

import (
	"cmp"
	"context"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
)

func (c *cli) adopt() *cobra.Command {
	return &cobra.Command{
		Use:               "adopt COLOUR [SERVICE]",
		Short:             "Say which colour is live, where no state is stored and it is not proven",
		Args:              c.colourAndService("the colour that is live: blue or green"),
		ValidArgsFunction: c.words(c.knownColours, c.knownServices),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.command(cmd, func(ctx context.Context, client *api.Client, s discovery.Service) (rollout.Answer, error) {
				return client.Adopt(ctx, s, discovery.Colour(args[0]))
			})
		},
	}
}

// live is the live colour, or that it is not known.
func live(s api.Status) string { return cmp.Or(string(s.Live), "unknown") }
