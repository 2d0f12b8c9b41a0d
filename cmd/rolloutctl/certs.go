package main

import (
	"github.com/spf13/cobra"
)

func (c *cli) certs() *cobra.Command {
	certs := &cobra.Command{
		Use:   "certs",
		Short: "What is to be done about the certificates of listeners",
		Args:  noArgs,
	}
	certs.AddCommand(&cobra.Command{
		Use:   "reload",
		Short: "Have every Envoy read the files of its certificates again; connections stay",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			answer, err := client.ReloadCerts(cmd.Context())
			if err != nil {
				return err
			}
			return c.answer(answer)
		},
	})
	return certs
}
