package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/sluice-proxy/sluice/cmd/internal/config"
	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/control"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/outside"
	storeconsul "github.com/sluice-proxy/sluice/rollout/store/consul"
	storefile "github.com/sluice-proxy/sluice/rollout/store/file"
	"github.com/sluice-proxy/sluice/xds"
)

// serve wires it all up and runs until ctx ends:
// discovery → controller → publisher → xDS, with the operator's API beside it.
func serve(ctx context.Context, path string, hup <-chan os.Signal, logger *slog.Logger) error {
	conf, err := load(path)
	if err != nil {
		return err
	}
	for _, n := range conf.Notes {
		logger.Warn("configuration", "note", n.String())
	}
	tokens := newTokens(conf, logger)
	store, closeStore, err := openStore(conf, tokens)
	if err != nil {
		return err
	}
	defer closeStore()
	xdsListener, apiListener, err := listen(conf)
	if err != nil {
		return err
	}
	defer xdsListener.Close()
	defer apiListener.Close()

	pub := newPublisher(conf, logger)
	orders := contract.NewClient("")
	orders.Token = tokens.of("drain.token_file")
	defer orders.Close()
	gates, err := outside.NewGates(outside.Prometheus{Address: conf.Prometheus.Address, TokenNow: tokens.of("prometheus.token_file")})
	if err != nil {
		return err
	}
	asked := &queries{gates: gates, conf: conf}
	if err := asked.admit(ctx, conf, logger); err != nil {
		return err
	}
	hooks := outside.NewHooks(logger)
	carried := newLoads(pub)
	control := control.New(control.Ports{
		Store: store, Drain: orders, Publish: pub.Publish, Proxies: pub.Proxies, Gates: gates, Hooks: hooks, Logger: logger,
		Loads: carried.Loads,
	})
	control.Configure(services(conf))
	source := newSource(logger, tokens.of("discovery.consul.token_file"), control.Discovered)

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return tokens.run(ctx) })
	group.Go(func() error { return control.Run(ctx) })
	group.Go(func() error { return gates.Run(ctx, control.NoticeOf) })
	group.Go(func() error { return hooks.Run(ctx, control.NoticeOf) })
	group.Go(func() error { return source.run(ctx, conf) })
	group.Go(func() error { return hear(ctx, pub, control.NoticeOf) })
	group.Go(func() error { return pub.rereadHourly(ctx) })
	group.Go(func() error { return carried.run(ctx, control) })
	group.Go(func() error { return importReports(ctx, conf, tokens.of("api.token_file"), pub.hub, logger) })
	group.Go(func() error { return serveXDS(ctx, pub, xdsListener) })
	group.Go(func() error {
		return serveAPI(ctx, operator(tokens.of("api.token_file"), control, pub, source, carried, asked), apiListener)
	})
	group.Go(func() error {
		hearing := func() { pub.server.Retry(); tokens.reread(); pub.reread() }
		reload(ctx, path, conf, hup, logger, control, asked, hearing, func(next *config.Config) {
			asked.follow(next)
			pub.configure(next)
			control.Configure(services(next))
			source.follow(next)
		})
		return nil
	})
	logger.Info("started", "xds", conf.XDS.Listen, "api", conf.API.Listen, "services", len(conf.Services))
	err = group.Wait()
	logger.Info("stopped")
	return err
}

// listen opens both ports, or none.
func listen(c *config.Config) (xds, api net.Listener, err error) {
	if xds, err = net.Listen("tcp", c.XDS.Listen.String()); err != nil {
		return nil, nil, fmt.Errorf("listen for Envoys (xds.listen): %w", err)
	}
	if api, err = net.Listen("tcp", c.API.Listen.String()); err != nil {
		xds.Close()
		return nil, nil, fmt.Errorf("listen for operators (api.listen): %w", err)
	}
	return xds, api, nil
}

func openStore(c *config.Config, tokens *tokens) (control.Store, func(), error) {
	if c.State.Consul != nil {
		s, err := storeconsul.New(storeconsul.Options{
			Address: c.State.Consul.Address, TokenNow: tokens.of("state.consul.token_file"),
			Datacenter: c.State.Consul.Datacenter, Prefix: c.State.Consul.Prefix,
		})
		return s, func() {}, err
	}
	s, err := storefile.Open(c.State.File)
	if err != nil {
		return nil, nil, err
	}
	return s, func() { _ = s.Close() }, nil
}

// services is the part of the configuration that the controller follows.
func services(c *config.Config) map[discovery.Service]control.Service {
	out := map[discovery.Service]control.Service{}
	for _, s := range c.Services {
		out[s.Name] = control.Service{Live: s.Live, Policy: s.Policy}
	}
	return out
}

// hear takes over what the proxies acknowledge and gives notice of it.
func hear(ctx context.Context, pub *publisher, notice func(...discovery.Service)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-pub.server.Changed():
			notice(pub.refresh()...)
		}
	}
}

func serveXDS(ctx context.Context, pub *publisher, l net.Listener) error {
	g := grpc.NewServer(xds.ServerOptions()...)
	pub.server.Register(g)
	pub.hub.Register(g)
	// Proxies keep what they hold when their streams end.
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	if err := g.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve Envoys: %w", err)
	}
	return nil
}

// operator is what the API shows and does.
func operator(token func() string, control *control.Controller, pub *publisher, source *source, carried *loads, asked *queries) http.Handler {
	registry := prometheus.NewRegistry()
	views := func() (map[discovery.Service]rollout.View, <-chan struct{}) { return carried.views(control) }
	now := func() map[discovery.Service]rollout.View {
		all, _ := views()
		return all
	}
	registry.MustRegister(newMetrics(now, pub.list), newLoadMetrics(carried), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	server := api.Server{
		Views: views, Do: asked.do(control), Plan: asked.plan(control), Proxies: carried.list, Reports: pub.hub.Export, Reread: pub.reread,
		Ready: func() error {
			err := control.Ready()
			if why := source.waiting(); err != nil && why != "" {
				return errors.New(why)
			}
			return err
		},
		Metrics: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
		Version: version,
	}
	return demanding(token, func(shown string) http.Handler {
		server.Token = shown
		return server.Handler()
	})
}

func serveAPI(ctx context.Context, handler http.Handler, l net.Listener) error {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	var closing sync.WaitGroup
	defer closing.Wait()
	stop := context.AfterFunc(ctx, func() {
		closing.Go(func() {
			fresh, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			if server.Shutdown(fresh) != nil {
				_ = server.Close()
			}
		})
	})
	defer stop()
	if err := server.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve operators: %w", err)
	}
	return nil
}
