package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
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

// running is the program while it serves.
type running struct {
	*settings
	car               *sidecar.Sidecar
	contract, clients net.Listener
	behind            *server // nil: somebody else runs it
	upgrades          int
}

// begin opens the listeners and starts the server, or takes over those of the image
// before.
func (s *settings) begin() (r *running, err error) {
	before, err := inherit()
	if err != nil {
		return nil, err
	}
	r = &running{settings: s}
	if before != nil {
		return r, r.resume(before)
	}
	if r.car, err = sidecar.New(s.sidecar); err != nil {
		return nil, err
	}
	if r.contract, err = net.Listen("tcp", s.drain); err != nil {
		return r, fmt.Errorf("--drain: %w", err)
	}
	if r.clients, err = net.Listen("tcp", s.listen); err != nil {
		return r, fmt.Errorf("--listen: %w", err)
	}
	if len(s.command) > 0 {
		if r.behind, err = startServer(s.command); err != nil {
			return r, err
		}
		s.sidecar.Logger.Info("the server is started", "pid", r.behind.process.Pid)
	}
	return r, nil
}

func (r *running) resume(before *baton) (err error) {
	if r.car, err = sidecar.Resume(r.sidecar, before.Sidecar); err != nil {
		return err
	}
	if r.contract, err = inheritedListener(before.Drain); err != nil {
		return fmt.Errorf("--drain: %w", err)
	}
	if r.clients, err = inheritedListener(before.Listen); err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	r.upgrades = before.Upgrades
	if before.Server > 0 {
		p, err := os.FindProcess(before.Server)
		if err != nil {
			return fmt.Errorf("the server: %w", err)
		}
		r.behind = watch(p)
	}
	r.sidecar.Logger.Info("upgraded", "version", version, "upgrades", r.upgrades, "active", r.car.Status().Active)
	return nil
}

// close gives back what begin took.
func (r *running) close() {
	for _, ln := range []net.Listener{r.contract, r.clients} {
		if ln != nil {
			_ = ln.Close()
		}
	}
	r.behind.stop(r.stopWait)
}

// serve runs until ctx ends, and then until the connections have left or the
// grace period is over.
func (s *settings) serve(ctx context.Context) error {
	r, err := s.begin()
	if r != nil {
		defer r.close()
	}
	if err != nil {
		return err
	}
	log := s.sidecar.Logger
	// Both serve beyond ctx, while the connections are let go.
	serving, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	var both sync.WaitGroup
	defer both.Wait()
	defer stop(nil)
	asked := wishes{make(chan struct{}, 1), make(chan chan error)}
	endpoint := &http.Server{
		Handler:           handler(r.car, image{version, r.upgrades}, asked),
		ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	defer endpoint.Close()
	both.Go(func() { stop(endpoint.Serve(r.contract)) })
	both.Go(func() { stop(r.car.Serve(serving, r.clients.(*net.TCPListener))) })
	log.Info("serving", "listen", r.clients.Addr().String(), "to", s.sidecar.To, "mode", s.sidecar.Mode, "drain", r.contract.Addr().String())
	for wanted := false; !wanted; {
		select {
		case <-serving.Done():
			return context.Cause(serving)
		case <-r.behind.done():
			return r.behind.fate()
		case failed := <-asked.upgrade:
			err := r.upgrade()
			log.Warn("not upgraded", "err", err)
			failed <- err
		case <-asked.shutdown:
			log.Info("asked to end")
			wanted = true
		case <-ctx.Done():
			wanted = true
		}
	}
	ending, cancel := context.WithTimeout(serving, s.grace)
	defer cancel()
	if err := r.car.Shutdown(ending); err != nil {
		return err
	}
	log.Info("empty", "evicted", r.car.Status().Evicted)
	return nil
}
