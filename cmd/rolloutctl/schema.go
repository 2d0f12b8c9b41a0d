package main

import (
	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/cmd/internal/config"
)

func (c *cli) schema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of rolloutd's configuration, for editors; asks no server",
		Long: `Print the JSON Schema of rolloutd's configuration, for editors; asks no server.

An editor with a YAML language server completes and checks a configuration that begins with

  # yaml-language-server: $schema=sluice.schema.json

The schema knows the keys and the kinds of their values; validate knows all the rules.`,
		Example: "  rolloutctl schema > sluice.schema.json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := c.out.Write(config.Schema)
			return err
		},
	}
}
