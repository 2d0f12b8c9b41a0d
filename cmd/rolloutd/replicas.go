package main

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-proxy/sluice/cmd/internal/config"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/xds/reports"
)

// importInterval is how often each replica is asked; proxies report as often.
const importInterval = time.Second

// importReports takes over what proxies report to the other replicas, until ctx ends.
func importReports(ctx context.Context, conf *config.Config, token func() string, hub *reports.Hub, logger *slog.Logger) error {
	all, ctx := errgroup.WithContext(ctx)
	for _, replica := range conf.Replicas {
		all.Go(func() error {
			client, err := api.NewClient(replica, "")
			if err == nil {
				client.TokenNow = token
				importFrom(ctx, replica, client, hub, logger)
			}
			return err
		})
	}
	return all.Wait()
}

// importFrom takes over what one replica exports. It logs when the replica ceases to
// answer and when it answers again; the proxies that report to it are silent meanwhile.
func importFrom(ctx context.Context, replica string, client *api.Client, hub *reports.Hub, logger *slog.Logger) {
	tick := time.NewTicker(importInterval)
	defer tick.Stop()
	for lost := false; ; {
		bounded, cancel := context.WithTimeout(ctx, 5*importInterval)
		exported, err := client.Reports(bounded)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			if lost {
				logger.Info("replica answers again", "replica", replica)
			}
			hub.Import(replica, exported)
		case !lost:
			logger.Warn("replica does not answer: what proxies report to it is not known", "replica", replica, "error", err)
		}
		lost = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
