// Command storm is the experiment: the same clients move from blue to green
// three times, through the same fleet of 3 blue and 3 green processes behind two
// real Envoys. In the storm the blue processes simply stop; in the funnel they let
// their connections go at the pace of the cap; then they ask them to come over, at
// the same pace. Letting a client in costs green time, as it costs real servers.
// With --scenario rollouts are disturbed instead. It prints what the clients saw,
// leaves storm.json, storm.png and storm.html, and fails if the funnel did not keep
// its promises.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/rollout/units"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// Names of the runs.
const (
	storm  = "storm"
	funnel = "funnel"
	asked  = "asked"
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
	e := experiment{reconnect: clients.Reconnect{Base: 500 * time.Millisecond, Max: 10 * time.Second}, calm: 3 * time.Second}
	every := 2 * time.Second
	flags := flag.NewFlagSet("storm", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&e.clients, "clients", 500, "how many clients")
	flags.IntVar(&e.cap.Close, "close", 50, "the cap: connections closed per --every, across the fleet")
	flags.DurationVar(&every, "every", every, "see --close")
	flags.TextVar(&e.reconnect, "reconnect", e.reconnect, "how clients reconnect: at-once, uniform:5s, uniform:3s..6s or backoff:500ms..10s (with full jitter)")
	flags.DurationVar(&e.handshake, "handshake", 20*time.Millisecond, "how long green takes to let a client in, one after the other; messages wait meanwhile")
	flags.DurationVar(&e.patience, "patience", 2*time.Second, "how long a client tries to connect before it gives up and tries again")
	flags.DurationVar(&e.notice, "notice", 10*time.Second, "how long clients that are asked may take to come over")
	names := flags.String("scenario", "", "all, or some of them with commas between: disturbed rollouts instead of storm, funnel and asked; 200 clients and 20 per 1s unless said otherwise")
	flags.StringVar(&e.out, "out", "out", "folder for storm.json, storm.png, storm.html and logs/")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return errUsage // flags has told why
	}
	var chosen []*scenario
	if *names != "" {
		var err error
		if chosen, err = choose(*names); err != nil {
			return err
		}
		set := map[string]bool{}
		flags.Visit(func(f *flag.Flag) { set[f.Name] = true })
		if !set["clients"] {
			e.clients = 200
		}
		if !set["close"] {
			e.cap.Close = 20
		}
		if !set["every"] {
			every = time.Second
		}
		e.handshake, e.patience, e.notice = 0, 0, 0 // something else is disturbed there
	}
	e.cap.Every = units.Duration(every)
	if err := e.prepare(flags.Args()); err != nil {
		return err
	}
	if chosen != nil {
		return e.performAll(ctx, chosen, stdout, stderr)
	}
	var runs []recording
	for _, name := range []string{storm, funnel, asked} {
		e.progress = newProgress(stderr, name)
		r, err := e.run(ctx, name)
		e.progress.end()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		runs = append(runs, r)
	}
	if err := e.leave(sideBySide(runs, e.cap), stdout); err != nil {
		return err
	}
	for _, r := range runs {
		if err := r.measure().broken(e.cap); err != nil {
			return fmt.Errorf("%w: this must not be; read %s", err, filepath.Join(e.out, "logs", r.name))
		}
	}
	return nil
}

// leave prints the table and leaves the files.
func (e experiment) leave(r report, stdout io.Writer) error {
	if err := printTable(stdout, r.rows); err != nil {
		return err
	}
	if err := r.writeFiles(e.out); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "\n%s has the picture, storm.html beside it the page, storm.json the figures.\n", filepath.Join(e.out, "storm.png"))
	return nil
}

// performAll performs the scenarios, one after the other.
func (e experiment) performAll(ctx context.Context, chosen []*scenario, stdout, stderr io.Writer) error {
	var plays []play
	for _, sc := range chosen {
		e.progress = newProgress(stderr, sc.name)
		p, err := e.perform(ctx, sc)
		e.progress.end()
		if err != nil {
			return fmt.Errorf("%s: %w", sc.name, err)
		}
		plays = append(plays, p)
	}
	all := oneByOne(plays, e.cap)
	if err := e.leave(all, stdout); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "\n%s\n\nWhat watch showed:\n", all.about)
	for _, p := range plays {
		fmt.Fprintf(stdout, "  %-12s  %s\n", p.scenario.name, strings.ReplaceAll(p.story(), " ", ", "))
	}
	for _, p := range plays {
		if err := p.broken(); err != nil {
			return fmt.Errorf("%s: %w: this must not be; read %s", p.scenario.name, err, filepath.Join(e.out, "logs", p.scenario.name))
		}
	}
	return nil
}

// choose finds the named scenarios.
func choose(names string) (chosen []*scenario, err error) {
	if names == "all" {
		return scenarios, nil
	}
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(scenarios, func(sc *scenario) bool { return sc.name == name })
		if i < 0 {
			var known []string
			for _, sc := range scenarios {
				known = append(known, sc.name)
			}
			return nil, fmt.Errorf("--scenario %s: there is no such scenario; use all, or some of %s", name, strings.Join(known, ","))
		}
		chosen = append(chosen, scenarios[i])
	}
	return chosen, nil
}

// affordable is how many a second the three of green let in without a queue: no share of
// the clients is spread so evenly that they could be busy all the time.
func (e experiment) affordable() float64 {
	if e.handshake <= 0 {
		return math.Inf(1)
	}
	return 0.8 * greens / e.handshake.Seconds()
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
	if rate, most := float64(e.cap.Close)/e.cap.Every.D().Seconds(), e.affordable(); rate > most {
		return fmt.Errorf("the cap lets go %.0f a second, and green lets in %.0f with --handshake %s: take a lower cap or a shorter handshake", rate, most, e.handshake)
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
