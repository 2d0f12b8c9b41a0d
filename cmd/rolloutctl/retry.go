package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/state"
)

func (c *cli) retry() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "retry [SERVICE]",
		Short: "Promote again what was aborted last, with the same overrides",
		Args:  c.maybeService, ValidArgsFunction: c.words(c.knownServices),
	}
	force := cmd.Flags().Bool("force", false, "promote although the plan has problems; this is recorded")
	wait := addWait(cmd)
	c.addMessage(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := wait.check(); err != nil {
			return err
		}
		client, name, err := c.dial(cmd.Context())
		if err != nil {
			return err
		}
		st, err := client.Service(cmd.Context(), name)
		if err != nil {
			return err
		}
		switch last := st.Last; {
		case st.Rollout != nil:
			return fmt.Errorf("%s: rollout %s is under way; retry is for after an abort", name, st.Rollout.ID)
		case last == nil:
			return fmt.Errorf("%s: no rollout has finished yet, so there is none to retry; promote a colour", name)
		case last.Outcome != state.Aborted:
			return fmt.Errorf("%s: the last rollout, %s, is %s, so there is nothing to retry; promote a colour", name, last.ID, last.Outcome)
		}
		p := api.Promotion{Target: string(st.Last.To), Overrides: st.Last.Overrides, Force: *force}
		return c.begin(cmd.Context(), client, name, p, *wait)
	}
	return cmd
}
