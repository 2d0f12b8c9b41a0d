// Command rolloutctl is the operator's hand: it shows what rolloutd does and
// tells it what to do. `rolloutctl --help` lists the verbs.
//
// Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 3 no server.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second one ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
