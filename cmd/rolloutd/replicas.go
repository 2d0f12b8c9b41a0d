package main

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-proxy/sluice/cmd/internal/config"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/xds"
)

// asking is how often each replica is asked; proxies report as often.
const asking = time.Second

// askReplicas takes over what proxies report to the other replicas, until ctx ends.
func askReplicas(ctx context.Context, conf *config.Config, server *xds.Server, logger *slog.Logger) error {
	all, ctx := errgroup.WithContext(ctx)
	for _, replica := range conf.Replicas {
		all.Go(func() error {
			client, err := api.NewClient(replica, conf.API.Token)
			if err == nil {
				askReplica(ctx, replica, client, server, logger)
			}
			return err
		})
	}
	return all.Wait()
}

// askReplica logs when it ceases to answer and when it answers again; the proxies
// that report to it are silent meanwhile.
func askReplica(ctx context.Context, replica string, client *api.Client, server *xds.Server, logger *slog.Logger) {
	tick := time.NewTicker(asking)
	defer tick.Stop()
	for lost := false; ; {
		bounded, cancel := context.WithTimeout(ctx, 5*asking)
		var reports xds.Reports
		err := client.Reports(bounded, &reports)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			if lost {
				logger.Info("replica answers again", "replica", replica)
			}
			server.Import(replica, reports)
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
