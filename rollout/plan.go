package rollout

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/returns"
	"github.com/sluice-proxy/sluice/rollout/spread"
	"github.com/sluice-proxy/sluice/rollout/units"
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
	Steps int            `json:"steps"`
	Takes units.Duration `json:"takes"`
	// Batches is what each batch of a staggered promotion does; empty without.
	Batches []Batch `json:"batches,omitempty"`
	// PeakPerSecond is the highest rate of evictions.
	PeakPerSecond float64 `json:"peak_per_second"`
	// Room is the free capacity of the target; nil when not declared by all.
	Room *int `json:"room"`
	// Notes are worth knowing; Problems make promote refuse unless forced.
	Notes    []string `json:"notes,omitempty"`
	Problems []string `json:"problems,omitempty"`

	held  map[discovery.InstanceID]int
	exact bool
}

// Batch is some old instances that drain together.
type Batch struct {
	Instances   []discovery.InstanceID `json:"instances"`
	Connections int                    `json:"connections"`
	Takes       units.Duration         `json:"takes"`
}

// foreseen is how long an evicted client is taken to be on its way before the
// first one was.
const foreseen = 5 * time.Second

// smallestWindow is three standard deviations of the connections that come by
// themselves while an evicted client is on its way: 3·√(rate · return time).
func smallestWindow(rate float64) int {
	return int(math.Ceil(3 * math.Sqrt(rate*foreseen.Seconds())))
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
	s.Rollout = &Rollout{From: target.Other(), To: target, Policy: policy}
	d := decider{s: s, seen: seen, now: now}
	p := Plan{Service: s.Service, From: target.Other(), To: target, Policy: policy}
	if d.healthy() == 0 {
		return Plan{}, refuse(NoTarget, "%s: %s has no healthy instance to take connections; start and register some first", s.Service, target)
	}
	d.planOld(&p)
	d.planTarget(&p)
	d.planProxies(&p)
	p.reckon(d.batches())
	d.planTimes(&p)
	return p, nil
}

// healthy counts the instances that take over.
func (d *decider) healthy() int {
	n := 0
	for _, key := range d.news() {
		if d.serves(key, d.s.Members[key]) {
			n++
		}
	}
	return n
}

// batches is what each batch holds, in the order in which they would go; a
// single one without stagger.
func (d *decider) batches() [][]discovery.InstanceID {
	left := d.olds()
	if d.s.Rollout.Policy.Stagger.Instances.IsZero() {
		return [][]discovery.InstanceID{left}
	}
	return slices.Collect(slices.Chunk(d.inTurn(left), max(1, d.batch())))
}

// reckon computes how long it takes when nothing holds it up. A window that is
// smaller than the cap is taken to let a whole window go each step.
func (p *Plan) reckon(batches [][]discovery.InstanceID) {
	f := p.Policy.Funnel
	if w := p.Policy.Window; w > 0 {
		f.Close = min(f.Close, w)
		if !p.exact {
			p.Takes += units.Duration(returns.Measuring)
		}
	}
	p.Takes += units.Duration(p.Policy.Soak.D() + settle + p.Policy.Grace.D())
	for i, batch := range batches {
		held := 0
		for _, key := range batch {
			held += p.held[key]
		}
		p.Batches = append(p.Batches, Batch{Instances: batch, Connections: held, Takes: units.Duration(spread.Finish(f, held).Round(100 * time.Millisecond))})
		p.Steps += (held + f.Close - 1) / f.Close
		last := i == len(batches)-1
		switch took := spread.Finish(f, held); {
		case last:
			p.Takes += units.Duration(took)
		case held > 0:
			p.Takes += units.Duration(f.Every.D()*time.Duration((held+f.Close-1)/f.Close)) + p.Policy.Stagger.Soak
		default:
			p.Takes += p.Policy.Stagger.Soak
		}
	}
	if len(batches) < 2 {
		p.Batches = nil
	}
	p.Takes = units.Duration(p.Takes.D().Round(100 * time.Millisecond))
	p.PeakPerSecond = float64(min(p.Connections, f.Close)) / f.Every.D().Seconds()
}

// planTimes compares how long it takes with the deadline and with the instances'
// kill timers.
func (d *decider) planTimes(p *Plan) {
	if end := p.Policy.Deadline; end > 0 && p.Takes > end {
		p.Problems = append(p.Problems, fmt.Sprintf("it takes about %s, longer than the deadline of %s; raise the pace or the deadline", p.Takes, end))
	}
	for _, key := range d.olds() {
		m := d.s.Members[key]
		in, _ := d.instance(key, m)
		kill := cmp.Or(units.Duration(in.KillAfter), p.Policy.KillAfter)
		takes := p.Takes
		for _, b := range p.Batches {
			if slices.Contains(b.Instances, key) {
				takes = b.Takes
			}
		}
		if kill > 0 && takes > kill {
			p.Problems = append(p.Problems, fmt.Sprintf("%s is killed %s after it begins to drain, and its drain takes about %s; raise kill_after or the pace", key, kill, takes))
		}
	}
}

// planOld looks at the side that lets go.
func (d *decider) planOld(p *Plan) {
	p.held = map[discovery.InstanceID]int{}
	for _, key := range d.olds() {
		m, sight := d.s.Members[key], d.seen.Instances[key]
		n, known := d.holds(key, m)
		p.held[key] = n
		p.Connections += n
		switch {
		case m.Drain == "" && p.Policy.Hook == nil:
			p.Notes = append(p.Notes, fmt.Sprintf("%s has no drain endpoint: the rollout waits until you stop and deregister it", key))
		case m.Drain == "" && !known:
			p.Notes = append(p.Notes, fmt.Sprintf("%s has no drain endpoint and the proxies do not report what it holds yet", key))
		case m.Drain == "" && n > p.Policy.Funnel.Close:
			p.Problems = append(p.Problems, fmt.Sprintf("%s holds %d connections, which its hook ends all at once, and a step may close %d; raise the pace, or put a sidecar in front of it", key, n, p.Policy.Funnel.Close))
		case m.Drain == "":
		case sight.Err != "":
			p.Problems = append(p.Problems, fmt.Sprintf("%s cannot be told to let go (%s)", key, sight.Err))
		case sight.At.IsZero():
			p.Problems = append(p.Problems, fmt.Sprintf("%s has not been asked yet what it holds, try again in a moment", key))
		}
	}
}

// planTarget looks at the side that takes over: its room, and that it holds
// nothing of the release before.
func (d *decider) planTarget(p *Plan) {
	rate := 0.0
	p.exact = true
	for _, key := range d.side(p.To) {
		m, sight := d.s.Members[key], d.seen.Instances[key]
		if !m.Departed.IsZero() && sight.Status.Active > 0 {
			p.Problems = append(p.Problems, fmt.Sprintf("%s of the release before still holds %d connections on %s", key, sight.Status.Active, p.To))
		}
		p.exact = p.exact && (sight.Status.Returned != nil || !m.Departed.IsZero())
	}
	for _, sight := range d.seen.Instances {
		rate += sight.PerSecond
	}
	if least := smallestWindow(rate); p.Policy.Window > 0 && !p.exact && p.Policy.Window < least {
		p.Problems = append(p.Problems, fmt.Sprintf("a window of %d cannot be kept, because %.0f connections a second come by themselves and returns are not told apart from them; the smallest is %d", p.Policy.Window, rate, least))
	}
	if room, known := d.room(); known {
		p.Room = &room
		switch inPlace := p.Policy.Stagger.InPlace; {
		case room < p.Connections && inPlace:
			p.Notes = append(p.Notes, fmt.Sprintf("%s has room for %d of the %d connections now: replace emptied %s instances by %s ones as the rollout goes on", p.To, room, p.Connections, p.From, p.To))
		case room < p.Connections:
			p.Problems = append(p.Problems, fmt.Sprintf("%s has room for %d of the %d connections", p.To, room, p.Connections))
		}
	} else if p.Policy.Stagger.InPlace {
		p.Problems = append(p.Problems, fmt.Sprintf("in place needs to know when %s is full; declare the capacity of its instances, or set capacity in the policy", p.To))
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
		p.Notes = append(p.Notes, fmt.Sprintf("%s: each is waited for up to %s", counted(away, "known proxy is not connected", "known proxies are not connected"), units.Duration(proxyPatience)))
	}
	if d.seen.Unpublished != "" {
		p.Problems = append(p.Problems, "the proxies cannot be told: "+d.seen.Unpublished)
	}
}
