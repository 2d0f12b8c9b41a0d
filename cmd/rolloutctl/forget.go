package main

import (
	"github.com/spf13/cobra"
)

func (c *cli) forget() *cobra.Command {
	return &cobra.Command{
		Use:               "forget NODE",
		Short:             "Say that a lost Envoy is gone, so that nobody waits for it any more",
		Args:              one("the name of the Envoy, as proxies lists it"),
		ValidArgsFunction: c.words(c.knownLostProxies),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			answer, err := client.Forget(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.answer(answer)
		},
	}
}
