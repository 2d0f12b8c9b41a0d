package main

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
)

// follow yields the world at each change and outlives a rolloutd that goes away:
// once it was there, its absence is a notice and no end. It ends with the error
// of a rolloutd that never was there (unless known), that refuses, or of ctx.
func follow(ctx context.Context, client *api.Client, service discovery.Service, known bool, notice func(string)) iter.Seq2[api.World, error] {
	return func(yield func(api.World, error) bool) {
		lost := false
		wait := retryMin
		for {
			for world, err := range client.Watch(ctx, service) {
				if ctx.Err() != nil {
					yield(world, context.Cause(ctx))
					return
				}
				if err != nil {
					if !known && errors.Is(err, api.ErrNoServer) || final(err) {
						yield(world, err)
						return
					}
					if !lost {
						lost = true
						notice(err.Error() + " (still trying; the rollout needs no rolloutctl)")
					}
					break
				}
				if lost {
					notice("rolloutd is back")
				}
				known, lost, wait = true, false, retryMin
				if !yield(world, nil) {
					return
				}
			}
			select {
			case <-ctx.Done():
				yield(api.World{}, context.Cause(ctx))
				return
			case <-time.After(rand.N(wait) + wait/2):
				wait = min(2*wait, retryMax)
			}
		}
	}
}

const (
	retryMin = 200 * time.Millisecond
	retryMax = 2 * time.Second
)

// final reports whether trying again cannot help.
func final(err error) bool {
	r, refused := errors.AsType[*rollout.Refusal](err)
	return refused && r.Code != rollout.NotReady
}
