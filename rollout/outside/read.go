package outside

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
)

const (
	// mostRead is how many gates Read asks at a time, for all that call it: a plan may
	// be asked for by anybody, as often as they like.
	mostRead = 16
	// readPatience bounds Read: somebody waits for the whole of it.
	readPatience = 15 * time.Second
)

// Read asks the gates now and waits for their answers, which Readings does not show. A
// gate that has none within its timeout is unanswered.
func (g *Gates) Read(ctx context.Context, service discovery.Service, gates []policy.Gate) map[string]observed.Reading {
	ctx, cancel := within(ctx, readPatience)
	defer cancel()
	answers := make([]observed.Reading, len(gates))
	var reading sync.WaitGroup
	for i, gate := range gates {
		reading.Go(func() {
			select {
			case <-ctx.Done():
			case g.reading <- struct{}{}:
				defer func() { <-g.reading }()
			}
			one, cancel := within(ctx, gate.Within())
			defer cancel()
			answers[i] = g.read(one, service, gate)
		})
	}
	reading.Wait()
	out := map[string]observed.Reading{}
	for i, gate := range gates {
		out[gate.Name] = answers[i]
	}
	return out
}
