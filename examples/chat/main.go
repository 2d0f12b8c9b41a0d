// Command chat is an instance: a small chat server with WebSockets and an event
// stream. Started with --drain it takes part in the drain contract; without, it
// is any server that knows nothing of it and drops its connections on SIGTERM.
// With --notice it asks its clients to come over before it lets them go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain"
)

// errUsage: the command line was wrong, and that was said.
var errUsage = errors.New("wrong usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	switch err := run(ctx, os.Args[1:], os.Stderr); {
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "chat:", err)
		os.Exit(1)
	}
}

// settings are the flags.
type settings struct {
	hello  hello
	listen string
	drain  string
	limit  int
	close  int
	every  time.Duration
	grace  time.Duration
	notice time.Duration
	busy   time.Duration
	feed   time.Duration
}

func run(ctx context.Context, args []string, stderr io.Writer) error {
	var s settings
	flags := flag.NewFlagSet("chat", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&s.hello.Instance, "name", "chat-b1", "the instance's name, which it tells its clients")
	flags.StringVar(&s.hello.Colour, "colour", "blue", "its colour, which it tells its clients")
	flags.StringVar(&s.hello.Version, "version", "v1", "its release, which it tells its clients")
	flags.StringVar(&s.listen, "listen", "127.0.0.1:9001", "address to serve at")
	flags.StringVar(&s.drain, "drain", "", "address of the drain endpoint; empty: drop the connections on SIGTERM")
	flags.IntVar(&s.limit, "limit", 0, "most connections to hold at once; 0 is no limit")
	flags.IntVar(&s.close, "close", 100, "on SIGTERM without orders: connections to close per --every")
	flags.DurationVar(&s.every, "every", time.Second, "see --close")
	flags.DurationVar(&s.grace, "grace", time.Minute, "on SIGTERM: the longest to wait until empty")
	flags.DurationVar(&s.notice, "notice", 0, "ask clients to come over, and on SIGTERM without orders close them so much later; 0 asks nobody")
	flags.DurationVar(&s.busy, "handshake", 0, "how long it takes to let a client in, one after the other; messages wait meanwhile")
	flags.DurationVar(&s.feed, "feed", 0, "say a numbered message to everyone so often; 0 is never")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return errUsage // flags has told why
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; chat has flags only, see --help", flags.Arg(0))
	}
	log := slog.New(slog.NewTextHandler(stderr, nil)).With("instance", s.hello.Instance)
	server := newServer(s.hello, log)
	server.asks, server.loop = s.notice > 0, newLoop(s.busy)
	if s.feed > 0 {
		defer server.feed(s.feed)()
	}
	if s.drain == "" {
		stop, err := serve(s.listen, server.handler(nil), log)
		if err != nil {
			return err
		}
		<-ctx.Done()
		stop()
		return nil
	}
	return s.serveGated(ctx, server, log)
}

// serveGated is all that a server does to take part in rollouts.
func (s settings) serveGated(ctx context.Context, server *server, log *slog.Logger) error {
	gate := drain.New(drain.Options{Limit: s.limit, Close: s.close, Every: s.every, Notice: s.notice, CountsReturns: true, Logger: log})
	stopDrain, err := serve(s.drain, gate.Endpoint(), log)
	if err != nil {
		return err
	}
	defer stopDrain()
	stop, err := serve(s.listen, server.handler(gate), log)
	if err != nil {
		return err
	}
	defer stop()
	<-ctx.Done() // SIGTERM
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.grace)
	defer cancel()
	return gate.Shutdown(ending)
}

// serve listens at addr and serves until stop is called, which ends every
// connection that was not taken over.
func serve(addr string, h http.Handler, log *slog.Logger) (stop func(), err error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("serving ended", "addr", addr, "err", err)
		}
	}()
	log.Info("serving", "addr", l.Addr().String())
	return func() { _ = srv.Close(); <-done }, nil
}
