package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/rollout/api"
)

// completionTime is how long a shell waits for words that rolloutd knows.
const completionTime = 2 * time.Second

// words completes by position: the i-th argument is one of what the i-th function
// knows; a file name is never offered.
func (c *cli) words(known ...func(context.Context) []cobra.Completion) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) >= len(known) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		return known[len(args)](ctx), cobra.ShellCompDirectiveNoFileComp
	}
}

func nothing(context.Context) []cobra.Completion { return nil }

func (c *cli) knownColours(context.Context) []cobra.Completion { return colours }

// statuses is what rolloutd says of its services, and whom to ask for more; nothing while
// nobody answers.
func statuses(ctx context.Context, c *cli) (*api.Client, []api.Status) {
	client, err := c.client()
	if err != nil {
		return nil, nil
	}
	world, err := client.Status(ctx)
	if err != nil {
		return nil, nil
	}
	return client, world.Services
}

// knownServices are rolloutd's; none while nobody answers.
func (c *cli) knownServices(ctx context.Context) (names []cobra.Completion) {
	_, services := statuses(ctx, c)
	for _, s := range services {
		names = append(names, string(s.Service))
	}
	return names
}

// knownRollouts are the ids of finished rollouts, newest first, and the services
// whose rollouts they are.
func (c *cli) knownRollouts(ctx context.Context) (ids []cobra.Completion) {
	client, services := statuses(ctx, c)
	for _, s := range services {
		if c.service != "" && c.service != string(s.Service) {
			continue
		}
		if c.service == "" {
			ids = append(ids, string(s.Service))
		}
		past, err := client.History(ctx, s.Service)
		if err != nil {
			continue
		}
		for i := len(past) - 1; i >= 0; i-- {
			ids = append(ids, cobra.CompletionWithDesc(past[i].ID, string(past[i].Outcome)+", to "+string(past[i].To)))
		}
	}
	return ids
}

// knownLostProxies are those that proxies forget may be asked for.
func (c *cli) knownLostProxies(ctx context.Context) (nodes []cobra.Completion) {
	client, err := c.client()
	if err != nil {
		return nil
	}
	all, err := client.Proxies(ctx)
	if err != nil {
		return nil
	}
	for _, p := range all {
		if !p.Connected {
			nodes = append(nodes, p.Node)
		}
	}
	return nodes
}
