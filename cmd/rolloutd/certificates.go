package main

import (
	"context"
	"maps"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy"
)

// rereads is how often Envoys are made to read the files of certificates again. Envoy sees by
// itself when one is moved over, and not when its content is replaced or a link is.
const rereads = time.Hour

// reread has every Envoy read the files of its certificates again, and says how many Secrets
// name some. Established connections keep theirs.
func (p *publisher) reread() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.builder.Reread()
	if p.set == nil {
		return 0 // the first Publish has them read
	}
	d := draft{config: p.config, wishes: maps.Clone(p.good), refused: map[discovery.Service]string{}}
	if set, shared := p.build(d); shared == "" {
		p.tell(set)
	}
	secrets := 0
	for _, r := range p.set {
		if r.Type == envoy.SecretType {
			secrets++
		}
	}
	return secrets
}

// rereadHourly has it done for whoever renews certificates without a word.
func (p *publisher) rereadHourly(ctx context.Context) error {
	every := time.NewTicker(rereads)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
			p.reread()
		}
	}
}
