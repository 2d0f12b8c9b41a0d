package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"

	"github.com/sluice-proxy/sluice/cmd/internal/config"
	"github.com/sluice-proxy/sluice/rollout/control"
)

// reload rereads the configuration whenever hup says so, after hearing is told of it.
// What is wrong or cannot change in a running program is logged, and the running
// configuration stays as a whole.
func reload(ctx context.Context, path string, conf *config.Config, hup <-chan os.Signal, logger *slog.Logger,
	control *control.Controller, asked *queries, hearing func(), apply func(*config.Config)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
		}
		hearing()
		next, err := load(path)
		if err != nil {
			logger.Error("reload refused", "reason", err)
			continue
		}
		changes, refused := conf.Changed(next)
		for _, p := range refused {
			logger.Error("reload refused", "reason", p.String())
		}
		busy := leaving(conf, next, control)
		for _, why := range busy {
			logger.Error("reload refused", "reason", why)
		}
		if len(refused)+len(busy) > 0 {
			continue
		}
		if err := asked.admit(ctx, next, logger); err != nil {
			logger.Error("reload refused", "reason", err)
			continue
		}
		apply(next)
		conf = next
		logger.Info("reloaded", "changes", changes)
	}
}

// leaving names the services that would be removed in the middle of a rollout.
func leaving(conf, next *config.Config, control *control.Controller) []string {
	var out []string
	views, _ := control.Views()
	for _, s := range conf.Services {
		stays := slices.ContainsFunc(next.Services, func(n config.Service) bool { return n.Name == s.Name })
		if r := views[s.Name].State.Rollout; !stays && r != nil {
			out = append(out, fmt.Sprintf("service %s cannot be removed while rollout %s is %s; wait for it or abort it first", s.Name, r.ID, r.Phase))
		}
	}
	return out
}
