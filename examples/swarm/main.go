// Command swarm is the clients alone: it keeps N WebSockets connected through
// Envoy, prints who serves them whenever that changes, and on SIGINT writes
// what every client went through.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/examples/swarm/clients"
)

// errUsage: the command line was wrong, and that was said.
var errUsage = errors.New("wrong usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	switch err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); {
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "swarm:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	opt := clients.Options{Reconnect: clients.Reconnect{Base: time.Second, Max: 10 * time.Second}, Seed: uint64(os.Getpid())}
	flags := flag.NewFlagSet("swarm", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&opt.Clients, "clients", 100, "how many clients")
	urls := flags.String("urls", "ws://127.0.0.1:8080/ws", "where they connect, comma-separated; each client picks one")
	flags.TextVar(&opt.Reconnect, "reconnect", opt.Reconnect, "at-once, uniform:5s, uniform:3s..6s or backoff:1s..10s (with full jitter)")
	policy := flags.String("policy", "reconnect", "reconnect: come back when disconnected; asked: when asked to, open a new connection before the old one is ended")
	flags.IntVar(&opt.Dials, "dials", 128, "most handshakes under way at once")
	flags.DurationVar(&opt.Handshake, "handshake", 10*time.Second, "how long a client tries before it gives up and tries again")
	flags.DurationVar(&opt.Ping, "ping", 30*time.Second, "how often each client sends a message; 0 is never")
	records := flags.String("records", "", "file to write every disconnect and return to, as JSON lines")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return errUsage // flags has told why
	}
	switch *policy {
	case "reconnect":
	case "asked":
		opt.ComeOver = true
	default:
		return fmt.Errorf("--policy %s: there is no such policy; use reconnect or asked", *policy)
	}
	opt.URLs = strings.Split(*urls, ",")
	swarm, err := clients.New(opt)
	if err != nil {
		return err
	}
	var watch sync.WaitGroup
	watch.Go(func() { report(ctx, swarm, stdout) })
	err = swarm.Run(ctx)
	watch.Wait()
	if err != nil || *records == "" {
		return err
	}
	return clients.WriteRecords(*records, swarm.Records())
}

// report prints a line per second in which something changed.
func report(ctx context.Context, swarm *clients.Swarm, out io.Writer) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for last := ""; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		line := swarm.Connected().String()
		if line != last {
			fmt.Fprintln(out, time.Now().Format(time.TimeOnly), line)
		}
		last = line
	}
}
