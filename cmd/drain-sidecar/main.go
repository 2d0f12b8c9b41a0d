// Command drain-sidecar stands in front of a server that cannot be changed and
// lets its connections go at the pace of a rollout: TCP with a FIN, WebSockets
// with a close frame 1012.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/cmd/internal/launch"
	"github.com/sluice-proxy/sluice/sidecar"
)

// version is set by the release build with -ldflags "-X main.version=…".
var version = "devel"

func main() {
	launch.SpareMemory()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// settings are the flags.
type settings struct {
	listen    string
	drain     string
	tokenFile string
	grace     time.Duration
	command   []string      // of the server behind; empty: it is run by somebody else
	stopWait  time.Duration // for its end
	sidecar   sidecar.Options
}

// run is the program: 0 when it was asked to stop and is empty, 1 when it could
// not start or connections were left, 2 for wrong usage; where the server is its
// child and ends by itself, the server's code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	asked := false // whether it could take over
	if len(args) > 0 {
		switch args[0] {
		case "wait":
			return wait(ctx, args[1:], stderr)
		case "upgrade":
			return upgrade(ctx, args[1:], stdout, stderr)
		case "takes-over": // of the image before, by its format, with its arguments
			if len(args) == 1 || args[1] != handoverFormat {
				fmt.Fprintf(stderr, "only format %s is taken over\n", handoverFormat)
				return 2
			}
			asked, args = true, args[2:]
		}
	}
	var s settings
	args, command, err := split(args)
	if err != nil {
		fmt.Fprintf(stderr, "drain-sidecar: %v\n", err)
		return 2
	}
	s.command = command
	flags := flag.NewFlagSet("drain-sidecar", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&s.listen, "listen", ":9000", "`address` to accept connections at")
	flags.StringVar(&s.sidecar.To, "to", "127.0.0.1:9001", "`address` of the server behind: host:port, or unix:/run/app.sock")
	flags.StringVar(&s.drain, "drain", "127.0.0.1:9002", "`address` of the drain endpoint; beyond loopback only with --token-file")
	flags.StringVar((*string)(&s.sidecar.Mode), "mode", string(sidecar.Auto), "auto: a client that asks for a WebSocket has one, others are TCP; websocket: all clients speak HTTP; tcp: nothing is looked at")
	flags.StringVar(&s.tokenFile, "token-file", "", "`file` with the bearer token that guards the drain endpoint")
	flags.IntVar(&s.sidecar.Limit, "limit", 0, "most connections held at once; 0 is no limit")
	flags.IntVar(&s.sidecar.Close, "close", 100, "on SIGTERM without orders: connections to close per --every")
	flags.DurationVar(&s.sidecar.Every, "every", time.Second, "see --close")
	flags.DurationVar(&s.grace, "shutdown-grace", time.Minute, "on SIGTERM: the longest to wait until empty")
	flags.DurationVar(&s.sidecar.CloseWait, "close-wait", time.Second, "how long an evicted client may take to say goodbye")
	flags.DurationVar(&s.sidecar.MessageWait, "message-wait", 30*time.Second, "how much longer a slow one may take to read the WebSocket frame that is under way")
	flags.DurationVar(&s.sidecar.Long, "long", 10*time.Second, "a response that runs longer is a connection that lasts; a shorter one is let end by itself")
	flags.Var(&s.sidecar.Proxy, "proxy-protocol", "PROXY header: in: each client sends one, of v1 or v2; out: the server is sent one, the client's or our own, out-v1 in version 1; in,out: both")
	flags.DurationVar(&s.stopWait, "server-grace", 10*time.Second, "with a server behind --: how long it may take to end after SIGTERM")
	flags.Usage = func() {
		fmt.Fprint(stderr, "Usage: drain-sidecar [flags] [-- SERVER ARGS]\n       drain-sidecar wait http://127.0.0.1:9002\n       drain-sidecar upgrade http://127.0.0.1:9002\n")
		flags.PrintDefaults()
	}
	logger, code := launch.Parse(flags, args, version)
	if logger == nil {
		return code
	}
	s.sidecar.Logger = logger
	err = s.check(flags.Args())
	if err == nil {
		_, err = sidecar.New(s.sidecar)
	}
	if err != nil {
		fmt.Fprintf(stderr, "drain-sidecar: %v\n", err)
		return 2
	}
	if asked {
		fmt.Fprintln(stdout, handoverFormat)
		return 0
	}
	if err = s.serve(ctx); err != nil {
		fmt.Fprintf(stderr, "drain-sidecar: %v\n", err)
	}
	return exitCode(err)
}
