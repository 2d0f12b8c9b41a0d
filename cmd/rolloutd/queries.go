package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/cmd/internal/config"
	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/control"
	"github.com/sluice-proxy/sluice/rollout/outside"
	"github.com/sluice-proxy/sluice/rollout/policy"
)

// queriesPatience bounds the parsing of all queries: a start waits for it.
const queriesPatience = 3 * time.Second

// queries has Prometheus parse the queries of gates: one that it does not understand
// keeps its gate closed for ever. Methods may be called concurrently.
type queries struct {
	gates *outside.Gates

	mu   sync.Mutex
	conf *config.Config // the one that is followed
}

// follow has refusals and plans go by another configuration.
func (q *queries) follow(conf *config.Config) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.conf = conf
}

// check returns every query of the configuration that Prometheus does not understand,
// and those of which it does not say so. name limits it to one service; empty does not.
func (q *queries) check(ctx context.Context, conf *config.Config, name discovery.Service) (faults, unchecked config.Problems) {
	all := conf.Queries(name)
	found, unknown := make([]string, len(all)), make([]string, len(all))
	ctx, cancel := context.WithTimeoutCause(ctx, queriesPatience, fmt.Errorf("no answer within %s", queriesPatience))
	defer cancel()
	var asking sync.WaitGroup
	slots := make(chan struct{}, 8)
	for i, query := range all {
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			found[i], unknown[i] = q.gates.Parse(ctx, query.Text)
		})
	}
	asking.Wait()
	for i, query := range all {
		if found[i] != "" {
			faults = append(faults, conf.At(query.Key, found[i]))
		}
		if unknown[i] != "" {
			unchecked = append(unchecked, conf.At(query.Key, "not checked: "+unknown[i]))
		}
	}
	return faults, unchecked
}

// admit logs what nobody could check and returns the faults, nil if there are none.
func (q *queries) admit(ctx context.Context, conf *config.Config, logger *slog.Logger) error {
	faults, unchecked := q.check(ctx, conf, "")
	for _, p := range unchecked {
		logger.Warn("configuration", "note", p.String())
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

// of is what Prometheus does not understand of a running service's gates.
func (q *queries) of(ctx context.Context, name discovery.Service) config.Problems {
	q.mu.Lock()
	conf := q.conf
	q.mu.Unlock()
	faults, _ := q.check(ctx, conf, name)
	return faults
}

// plan is a plan with the queries that are not understood among its problems.
func (q *queries) plan(c *control.Controller) func(context.Context, discovery.Service, discovery.Colour, policy.Overrides) (rollout.Plan, error) {
	return func(ctx context.Context, name discovery.Service, to discovery.Colour, o policy.Overrides) (rollout.Plan, error) {
		plan, err := c.Plan(ctx, name, to, o)
		if err != nil {
			return plan, err
		}
		for _, fault := range q.of(ctx, name) {
			plan.Problems = append(plan.Problems, fault.String())
		}
		return plan, nil
	}
}

// do refuses, like the plan, a promotion that would wait for a query that nobody
// understands.
func (q *queries) do(c *control.Controller) func(context.Context, rollout.Command) (rollout.Answer, error) {
	return func(ctx context.Context, command rollout.Command) (rollout.Answer, error) {
		if p, ok := command.(rollout.Promote); ok && !p.Force {
			if faults := q.of(ctx, p.Service); len(faults) > 0 {
				text := strings.ReplaceAll(faults.Error(), "\n", "; ")
				return rollout.Answer{}, &rollout.Refusal{Code: rollout.Infeasible, Text: string(p.Service) + ": " + text + "; --force promotes all the same"}
			}
		}
		return c.Do(ctx, command)
	}
}
