package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// one demands exactly one argument and says what it is.
func one(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("%d arguments are given; give one, %s", len(args), what)
		}
		return nil
	}
}

// atMostOne is one that may be left out.
func atMostOne(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > 1 {
			return fmt.Errorf("%d arguments are given; give at most one, %s", len(args), what)
		}
		return nil
	}
}

// noArgs is for verbs that say everything with flags.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no argument, but %q is given", cmd.Name(), args[0])
	}
	return nil
}
