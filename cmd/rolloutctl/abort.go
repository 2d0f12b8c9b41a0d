package main

import (
	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/rollout/state"
)

func (c *cli) abort() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "abort [SERVICE]",
		Short: "Go back to the live colour, paced like the way there",
		Args:  c.maybeService, ValidArgsFunction: c.words(c.knownServices),
	}
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
		answer, err := client.Abort(cmd.Context(), service)
		if err != nil {
			return err
		}
		if err := c.answer(answer); err != nil || !wait.on || answer.Rollout == "" {
			return err
		}
		return c.await(cmd.Context(), client, service, answer.Rollout, state.Aborted, *wait)
	}
	return cmd
}
