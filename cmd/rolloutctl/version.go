package main

import (
	"cmp"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/rollout/api"
)

// version is set by the release build with -ldflags "-X main.version=…".
var version string

func (c *cli) version() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print rolloutctl's version; asks no server",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			v := api.Version{Version: cmp.Or(version, "unknown")}
			if info, ok := debug.ReadBuildInfo(); ok && version == "" {
				v.Version = cmp.Or(info.Main.Version, v.Version)
			}
			if c.json() {
				return c.printJSON(v)
			}
			return c.printf("rolloutctl %s (%s)\n", v.Version, runtime.Version())
		},
	}
}
