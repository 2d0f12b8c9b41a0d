// Command rolloutd is Sluice's control plane: an Envoy management server that
// moves live connections from one colour of a service to the other.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/sluice-proxy/sluice/cmd/internal/launch"
)

// version is set by the release build with -ldflags "-X main.version=…".
var version = "devel"

func main() {
	launch.SpareMemory()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	hup := make(chan os.Signal, 1) // a level: one reload reads the newest file
	signal.Notify(hup, syscall.SIGHUP)
	os.Exit(run(ctx, os.Args[1:], hup, os.Stderr))
}

// run is the program: 0 when it was asked to stop, 1 when it could not start or
// go on, 2 for wrong usage.
func run(ctx context.Context, args []string, hup <-chan os.Signal, stderr io.Writer) int {
	flags := flag.NewFlagSet("rolloutd", flag.ContinueOnError)
	flags.SetOutput(stderr)
	path := flags.String("config", "sluice.yaml", "the configuration `file`; rolloutctl validate checks it, SIGHUP rereads it")
	check := flags.String("check", "", "check the configuration `file`, with the filters in it, and start nothing")
	logger, code := launch.Parse(flags, args, version)
	if logger == nil {
		return code
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "rolloutd: %q is not understood; rolloutd takes only flags, see rolloutd -help\n", flags.Arg(0))
		return 2
	}
	if *check != "" {
		if _, err := load(*check); err != nil {
			fmt.Fprintln(stderr, err)
			return 1
		}
		return 0
	}
	if err := serve(ctx, *path, hup, logger); err != nil {
		fmt.Fprintf(stderr, "rolloutd: %v\n", err)
		return 1
	}
	return 0
}
