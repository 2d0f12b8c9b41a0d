// Command storm is the experiment: the same clients move from blue to green
// twice, through the same fleet of 3 blue and 3 green processes behind two real
// Envoys. In the storm the blue processes simply stop; in the funnel they let
// their connections go at the pace of the cap. It prints what the clients saw,
// leaves storm.json, storm.png and storm.html, and fails if the funnel did not
// keep its promises.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/examples/fleet"
	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/rollout"
)

// Names of the runs.
const (
	storm  = "storm"
	funnel = "funnel"
)

// errUsage: the command line was wrong, and that was said.
var errUsage = errors.New("wrong usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	switch err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); {
	case errors.Is(err, errUsage):
		os.Exit(2)
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "storm: interrupted; everything it started is ended")
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "storm:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	e := experiment{reconnect: clients.Reconnect{Base: 500 * time.Millisecond, Max: 10 * time.Second}}
	every := 3 * time.Second
	flags := flag.NewFlagSet("storm", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&e.clients, "clients", 100, "how many clients")
	flags.IntVar(&e.cap.Close, "close", 10, "the cap: connections closed per --every, across the fleet")
	flags.DurationVar(&every, "every", every, "see --close")
	flags.TextVar(&e.reconnect, "reconnect", e.reconnect, "how clients reconnect: at-once, uniform:5s or backoff:500ms..10s (with full jitter)")
	flags.StringVar(&e.out, "out", "out", "folder for storm.json, storm.png, storm.html and logs/")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return errUsage // flags has told why
	}
	e.cap.Every = rollout.Duration(every)
	if err := e.prepare(flags.Args()); err != nil {
		return err
	}
	var runs []recording
	var all []figures
	for _, name := range []string{storm, funnel} {
		e.progress = newProgress(stderr, name)
		r, err := e.run(ctx, name)
		e.progress.end()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		runs = append(runs, r)
		all = append(all, r.measure())
	}
	if err := printTable(stdout, table(all, e.cap)); err != nil {
		return err
	}
	if err := writeFiles(e.out, runs, all, e.cap); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "\n%s has the picture, storm.html beside it the page, storm.json the figures.\n", filepath.Join(e.out, "storm.png"))
	for _, f := range all {
		if err := f.broken(e.cap); err != nil {
			return fmt.Errorf("%w: this must not be; read %s", err, filepath.Join(e.out, "logs", f.Name))
		}
	}
	return nil
}

// prepare checks what can be checked before anything is started.
func (e *experiment) prepare(rest []string) error {
	if len(rest) > 0 {
		return fmt.Errorf("unexpected argument %q; storm has flags only, see --help", rest[0])
	}
	if e.clients < 1 {
		return fmt.Errorf("--clients is %d; there must be at least 1", e.clients)
	}
	if err := e.cap.Check(); err != nil {
		return err
	}
	if _, err := fleet.EnvoyPath(); err != nil {
		return err
	}
	// The children inherit the limit. The kernel shares the clients out to the
	// Envoys roughly evenly, and each costs an Envoy two descriptors.
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	if need := uint64(e.clients) + uint64(e.clients)/5 + 500; need > limit.Max {
		return fmt.Errorf("%d clients need %d open files in one process, the limit is %d: raise it (ulimit -Hn) or take fewer clients", e.clients, need, limit.Max)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raise the limit of open files to %d: %w", limit.Max, err)
	}
	bin, err := fleet.OwnBin()
	e.bin = bin
	return err
}
