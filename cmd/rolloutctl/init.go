package main

import (
	"cmp"
	_ "embed"
	"strings"
	"text/template"

	"github.com/spf13/cobra"
)

// beginning is a commented configuration of one service.
//
//go:embed init.yaml.tmpl
var beginning string

func (c *cli) initial() *cobra.Command {
	var first struct{ Consul, File, Service string }
	cmd := &cobra.Command{
		Use:   "init --consul ADDRESS | --file FILE",
		Short: "Print a commented configuration to begin with; asks no server",
		Example: `  rolloutctl init --consul 127.0.0.1:8500 --service chat > sluice.yaml
  rolloutctl init --file instances.yaml --service chat > sluice.yaml`,
		Args: noArgs,
	}
	cmd.Flags().StringVar(&first.Consul, "consul", "", "`ADDRESS` of the Consul agent that knows the instances")
	cmd.Flags().StringVar(&first.File, "file", "", "`FILE` that lists the instances")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if (first.Consul == "") == (first.File == "") {
			return usagef("say where the instances are: --consul ADDRESS, or --file FILE")
		}
		first.Service = cmp.Or(c.service, "chat")
		for flag, value := range map[string]string{"consul": first.Consul, "file": first.File, "service": first.Service} {
			if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || strings.ContainsRune(`"\`, r) }) {
				return usagef("--%s is %q; leave quotes, backslashes and control characters out", flag, value)
			}
		}
		return template.Must(template.New("").Parse(beginning)).Execute(c.out, first)
	}
	return cmd
}
