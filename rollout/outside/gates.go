// Package outside speaks with what is neither proxy nor instance: it asks the
// gates of a policy, of Prometheus, a command or a URL, and calls its hooks.
package outside

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	v1 "github.com/prometheus/client_golang/api/prometheus/v1"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/internal/level"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
)

// Gates asks the gates of policies: each in a goroutine of its own, at most once
// at a time, and no longer than its timeout. It implements control.Gates; its
// methods may be called concurrently, and return at once.
type Gates struct {
	web        web
	prometheus v1.API // nil: there is none
	parser     parser
	wanted     level.Level
	reading    chan struct{} // holds one for each gate that Read asks

	mu       sync.Mutex
	services map[discovery.Service]map[string]*asked
}

// asked is one gate of a service. What is asked of one that is no longer among
// the services is forgotten.
type asked struct {
	gate    policy.Gate
	wanted  bool
	asking  context.CancelFunc // nil while it is not asked
	reading *observed.Reading  // nil before the first
}

// NewGates starts nothing; Run does. The error is an address of Prometheus that
// is none.
func NewGates(p Prometheus) (*Gates, error) {
	w := newWeb()
	prometheus, err := p.connect(w.transport)
	if err != nil {
		return nil, err
	}
	return &Gates{
		web: w, prometheus: prometheus, parser: p.parsing(w.transport), wanted: level.New(), reading: make(chan struct{}, mostRead),
		services: map[discovery.Service]map[string]*asked{},
	}, nil
}

// Ask has those of these gates of the service that belong to the moment asked now.
// One that is being asked is not asked again; one that is not among them, or was
// another, is forgotten, also while it is being asked.
func (g *Gates) Ask(service discovery.Service, gates []policy.Gate, at policy.Moment) {
	g.mu.Lock()
	old, now := g.services[service], map[string]*asked{}
	for _, gate := range gates {
		a := old[gate.Name]
		if a == nil || !reflect.DeepEqual(a.gate, gate) {
			a = &asked{gate: gate}
		}
		if gate.Asked(at) {
			a.wanted = a.asking == nil
		}
		now[gate.Name] = a
	}
	for name, a := range old {
		if a != now[name] && a.asking != nil {
			a.asking()
		}
	}
	g.services[service] = now
	g.mu.Unlock()
	g.wanted.Set()
}

// Readings is the newest reading of each gate of the service that has one.
func (g *Gates) Readings(service discovery.Service) map[string]observed.Reading {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := map[string]observed.Reading{}
	for name, a := range g.services[service] {
		if a.reading != nil {
			out[name] = *a.reading
		}
	}
	return out
}

// Run asks until ctx ends, and gives notice of each new reading. Then it kills
// the commands that still run.
func (g *Gates) Run(ctx context.Context, notice func(...discovery.Service)) error {
	var asking sync.WaitGroup
	defer g.web.close()
	defer asking.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.wanted:
		}
		g.mu.Lock()
		for service, gates := range g.services {
			for a := range maps.Values(gates) {
				if !a.wanted {
					continue
				}
				one, cancel := within(ctx, a.gate.Within())
				a.wanted, a.asking = false, cancel
				asking.Go(func() {
					defer cancel()
					reading := g.read(one, service, a.gate)
					g.mu.Lock()
					a.asking, a.reading = nil, &reading
					g.mu.Unlock()
					notice(service)
				})
			}
		}
		g.mu.Unlock()
	}
}

// read asks one gate. It was asked when that began.
func (g *Gates) read(ctx context.Context, service discovery.Service, gate policy.Gate) observed.Reading {
	at := time.Now()
	var r observed.Reading
	switch {
	case gate.Query != "":
		r = query(ctx, g.prometheus, gate)
	case gate.URL != "":
		said, err := g.web.call(ctx, http.MethodGet, gate.URL, nil)
		r = answered(host(gate.URL), err, said)
	case len(gate.Command) > 0:
		said, err := execute(ctx, gate.Command, "SLUICE_SERVICE="+string(service))
		r = answered(filepath.Base(gate.Command[0]), err, said)
	default:
		r = unanswered("it has neither query nor command nor url")
	}
	r.At = at
	r.Text = fmt.Sprintf("gate %s is %s: %s", gate.Name, map[bool]string{true: "open", false: "closed"}[r.Open], r.Text)
	return r
}

// answered is the reading of who says yes, says no, or says nothing.
func answered(who string, err error, said string) observed.Reading {
	if err != nil {
		_, no := errors.AsType[refused](err)
		return observed.Reading{Unanswered: !no, Text: outcome(who, err, said)}
	}
	return observed.Reading{Open: true, Text: cmp.Or(said, who+" answers")}
}
