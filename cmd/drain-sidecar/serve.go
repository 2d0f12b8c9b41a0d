package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/internal/secret"
	"github.com/sluice-proxy/sluice/sidecar"
)

// check refuses what cannot be meant, and completes the rest.
func (s *settings) check(args []string) error {
	positive := func(name string, d time.Duration) error {
		if d <= 0 {
			return fmt.Errorf("--%s is %s; it must be above 0", name, d)
		}
		return nil
	}
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q; there are flags only, and the server's command behind --, see --help", args[0])
	}
	if s.sidecar.Limit < 0 || s.sidecar.Close <= 0 {
		return fmt.Errorf("--limit is %d and --close is %d; --limit must be 0 or more, --close above 0", s.sidecar.Limit, s.sidecar.Close)
	}
	if err := errors.Join(positive("every", s.sidecar.Every), positive("shutdown-grace", s.grace), positive("close-wait", s.sidecar.CloseWait), positive("message-wait", s.sidecar.MessageWait), positive("long", s.sidecar.Long), positive("server-grace", s.stopWait)); err != nil {
		return err
	}
	if s.tokenFile != "" {
		var err error
		if s.sidecar.Token, err = secret.File(s.tokenFile); err != nil {
			return fmt.Errorf("--token-file: %w", err)
		}
	}
	host, port, err := net.SplitHostPort(s.drain)
	if err != nil {
		return fmt.Errorf("--drain: %w", err)
	}
	if s.sidecar.Token != "" {
		return nil
	}
	if host == "" {
		s.drain = net.JoinHostPort("127.0.0.1", port)
	} else if addr, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !addr.IsLoopback()) {
		return fmt.Errorf("--drain is %s, which can be reached from other machines, so it needs --token-file", s.drain)
	}
	return nil
}

// serve runs until ctx ends, and then until the connections have left or the
// grace period is over.
func (s *settings) serve(ctx context.Context, car *sidecar.Sidecar) error {
	log := s.sidecar.Logger
	contract, err := net.Listen("tcp", s.drain)
	if err != nil {
		return fmt.Errorf("--drain: %w", err)
	}
	defer contract.Close()
	clients, err := net.Listen("tcp", s.listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	defer clients.Close()

	// Both serve beyond ctx, while the connections are let go.
	serving, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	var both sync.WaitGroup
	defer both.Wait()
	defer stop(nil)
	asked := make(chan struct{}, 1) // by POST /shutdown
	endpoint := &http.Server{Handler: handler(car, asked), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	defer endpoint.Close()
	both.Go(func() { stop(endpoint.Serve(contract)) })
	both.Go(func() { stop(car.Serve(serving, clients.(*net.TCPListener))) })
	log.Info("serving", "listen", clients.Addr().String(), "to", s.sidecar.To, "mode", s.sidecar.Mode, "drain", contract.Addr().String())

	var behind *server
	if len(s.command) > 0 {
		if behind, err = startServer(s.command); err != nil {
			return err
		}
		defer behind.stop(s.stopWait)
		log.Info("the server is started", "pid", behind.process.Pid)
	}
	select {
	case <-serving.Done():
		return context.Cause(serving)
	case <-behind.done():
		return behind.fate()
	case <-asked:
		log.Info("asked to end")
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(serving, s.grace)
	defer cancel()
	if err := car.Shutdown(ending); err != nil {
		return err
	}
	log.Info("empty", "evicted", car.Status().Evicted)
	return nil
}

// handler is the drain endpoint and beside it, for whom it answers, POST /shutdown:
// as SIGTERM.
func handler(car *sidecar.Sidecar, asked chan<- struct{}) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", car.Endpoint())
	mux.Handle("POST /shutdown", car.Guard(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		select {
		case asked <- struct{}{}:
		default: // it was asked before
		}
		w.WriteHeader(http.StatusAccepted)
	})))
	return mux
}
