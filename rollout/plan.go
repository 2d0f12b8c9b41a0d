package rollout

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
)

// Plan is what a promotion would do, computed before anything happens.
type Plan struct {
	Service discovery.Service `json:"service"`
	From    discovery.Colour  `json:"from"`
	To      discovery.Colour  `json:"to"`
	Policy  Policy            `json:"policy"`
	// Connections is what From holds now.
	Connections int `json:"connections"`
	// Steps is how many steps the funnel needs; Takes how long the whole
	// promotion does, from promote to the last eviction.
	Steps int      `json:"steps"`
	Takes Duration `json:"takes"`
	// PeakPerSecond is the highest rate of evictions.
	PeakPerSecond float64 `json:"peak_per_second"`
	// Room is the free capacity of the target; nil when not declared by all.
	Room *int `json:"room"`
	// Notes are worth knowing; Problems make promote refuse unless forced.
	Notes    []string `json:"notes,omitempty"`
	Problems []string `json:"problems,omitempty"`
}

// MakePlan computes what promoting target would do. The error is a *Refusal that
// no force overrides.
func MakePlan(s State, seen Seen, target discovery.Colour, policy Policy, now time.Time) (Plan, error) {
	if target != discovery.Blue && target != discovery.Green {
		return Plan{}, refuse(BadRequest, "%s: %q is no colour; use blue or green", s.Service, target)
	}
	if s.Retired {
		return Plan{}, refuse(UnknownService, "%s left the configuration; put it back to promote it", s.Service)
	}
	if bad := policy.Check(); len(bad) > 0 {
		key := slices.Min(slices.Collect(maps.Keys(bad)))
		return Plan{}, refuse(BadRequest, "%s: %v", s.Service, bad[key])
	}
	d := decider{s: s, seen: seen, now: now}
	p := Plan{Service: s.Service, From: target.Other(), To: target, Policy: policy}
	if d.healthy(target) == 0 {
		return Plan{}, refuse(NoTarget, "%s: %s has no healthy instance to take connections; start and register some first", s.Service, target)
	}
	d.planOld(&p)
	d.planTarget(&p)
	d.planProxies(&p)
	p.Steps = (p.Connections + policy.Funnel.Close - 1) / policy.Funnel.Close
	p.Takes = Duration((policy.Soak.D() + settle + policy.Grace.D() + policy.Funnel.finishes(p.Connections)).Round(100 * time.Millisecond))
	p.PeakPerSecond = float64(min(p.Connections, policy.Funnel.Close)) / policy.Funnel.Every.D().Seconds()
	return p, nil
}

func (d *decider) healthy(c discovery.Colour) int {
	n := 0
	for _, key := range d.side(c) {
		if d.serves(key, d.s.Members[key]) {
			n++
		}
	}
	return n
}

// planOld looks at the side that lets go.
func (d *decider) planOld(p *Plan) {
	for _, key := range d.side(p.From) {
		m, sight := d.s.Members[key], d.seen.Instances[key]
		switch {
		case m.Drain == "":
			p.Notes = append(p.Notes, fmt.Sprintf("%s has no drain endpoint: the rollout waits until you stop and deregister it", key))
		case sight.Err != "":
			p.Problems = append(p.Problems, fmt.Sprintf("%s cannot be told to let go (%s)", key, sight.Err))
		case sight.At.IsZero():
			p.Problems = append(p.Problems, fmt.Sprintf("%s has not been asked yet what it holds, try again in a moment", key))
		default:
			p.Connections += sight.Status.Active
		}
	}
}

// planTarget looks at the side that takes over: its room, and that it holds
// nothing of the release before.
func (d *decider) planTarget(p *Plan) {
	for _, key := range d.side(p.To) {
		if m, sight := d.s.Members[key], d.seen.Instances[key]; !m.Departed.IsZero() && sight.Status.Active > 0 {
			p.Problems = append(p.Problems, fmt.Sprintf("%s of the release before still holds %d connections on %s", key, sight.Status.Active, p.To))
		}
	}
	d.s.Rollout = &Rollout{To: p.To}
	if room, known := d.room(); known {
		p.Room = &room
		if room < p.Connections {
			p.Problems = append(p.Problems, fmt.Sprintf("%s has room for %d of the %d connections", p.To, room, p.Connections))
		}
	}
	if d.seen.Fleet.Err != "" {
		p.Problems = append(p.Problems, d.seen.Fleet.Err)
	}
	if d.seen.Fleet.Suspect != "" {
		p.Problems = append(p.Problems, d.seen.Fleet.Suspect)
	}
}

// planProxies looks at who has to hear of the switch.
func (d *decider) planProxies(p *Plan) {
	connected := 0
	for _, x := range d.seen.Proxies {
		if x.Connected {
			connected++
		}
		if x.Connected && x.Nack != "" {
			p.Problems = append(p.Problems, fmt.Sprintf("proxy %s refused its configuration: %s", x.Node, x.Nack))
		}
	}
	if connected == 0 {
		p.Problems = append(p.Problems, "no proxy is connected, so nobody would hear where new connections go")
	}
	if away := len(d.s.Proxies) - connected; connected > 0 && away > 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("%s: each is waited for up to %s", counted(away, "known proxy is not connected", "known proxies are not connected"), Duration(proxyPatience)))
	}
	if d.seen.Unpublished != "" {
		p.Problems = append(p.Problems, "the proxies cannot be told: "+d.seen.Unpublished)
	}
}
