package main

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/spf13/cobra"
)

// version is set by the release build with -ldflags "-X main.version=…".
var version = "devel"

// versionTime is how long version waits for rolloutd's.
const versionTime = 5 * time.Second

// versions is what -o json prints: of rolloutctl, and of the rolloutd that it asked
// or why that did not say.
type versions struct {
	Version string `json:"version"`
	Server  string `json:"server,omitempty"`
	Error   string `json:"error,omitempty"`
}

func (c *cli) version() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of rolloutctl and of rolloutd, and warn when they differ",
		Args:  noArgs,
	}
	alone := cmd.Flags().Bool("client", false, "ask no server")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		v := versions{Version: version}
		if !*alone {
			v.Server, v.Error = c.serverVersion(cmd.Context())
		}
		if c.json() {
			return c.printJSON(v)
		}
		if err := c.printf("rolloutctl %s (%s)\n", v.Version, runtime.Version()); err != nil || *alone {
			return err
		}
		if v.Error != "" {
			return c.printf("rolloutd   not known: %s\n", clean(v.Error))
		}
		if err := c.printf("rolloutd   %s\n", clean(v.Server)); err != nil || v.Server == v.Version {
			return err
		}
		_, err := fmt.Fprintln(c.err, "rolloutctl: the two are of different releases; use both of one")
		return err
	}
	return cmd
}

func (c *cli) serverVersion(ctx context.Context) (version, trouble string) {
	client, err := c.client()
	if err != nil {
		return "", err.Error()
	}
	ctx, cancel := context.WithTimeoutCause(ctx, versionTime, fmt.Errorf("no answer within %s", versionTime))
	defer cancel()
	v, err := client.Version(ctx)
	if err != nil {
		return "", err.Error()
	}
	return v.Version, ""
}
