package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func (c *cli) man() *cobra.Command {
	return &cobra.Command{
		Use:   "man FOLDER",
		Short: "Write a manual page for each verb into a folder",
		Long: `Write a manual page for each verb into a folder, which must be there; asks no server.

  rolloutctl man /usr/local/share/man/man1`,
		Args: one("the folder"),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			root.DisableAutoGenTag = true
			// Not this machine's environment.
			root.PersistentFlags().Lookup("server").DefValue = defaultServer
			root.PersistentFlags().Lookup("token-file").DefValue = ""
			// The same pages from the same release, whenever they are made.
			epoch := time.Unix(0, 0).UTC()
			header := &doc.GenManHeader{Section: "1", Source: "Sluice " + version, Manual: "Sluice", Date: &epoch}
			if err := doc.GenManTree(root, header, args[0]); err != nil {
				return fmt.Errorf("the manual pages cannot be written: %w", err)
			}
			return c.printf("the manual pages are in %s\n", args[0])
		},
	}
}
