package main

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// scenario is one way in which a rollout from blue to green meets the world, and
// what has to hold then.
type scenario struct {
	name string
	said string // in the picture
	// blue and green are how many instances each colour has at the start.
	blue, green int
	// capacity of an instance and window are shares of the clients; 0 is none.
	capacity, window float64
	// policy is the rest of the policy: YAML, with a comma before each key.
	policy string
	// reconnect is how the clients come back; zero: as the flags say.
	reconnect clients.Reconnect
	// tight: promote refuses at first, and is forced.
	tight bool
	// deeds are done one after the other, each when its moment has come.
	deeds []deed
	// outcome of the last rollout, and the release on which everybody is then.
	outcome state.Outcome
	ends    string
	// reasons match the codes that watch shows, in order, without those that any
	// rollout passes through.
	reasons *regexp.Regexp
	// most and mean bound how often the funnel closes a client.
	most int
	mean float64
	// holds is what else has to hold; nil is nothing.
	holds func(play) error
}

// deed is something that happens in a scenario.
type deed struct {
	what string // in the picture
	when func(context.Context, *play) error
	do   func(context.Context, *play) error
}

// play is one performance of a scenario.
type play struct {
	recording
	*scenario
	exp   experiment
	stage *stage
	swarm *clients.Swarm
	// watched is what watch showed.
	watched []sight
	// done is when each deed was done, in their order.
	done []time.Time
	// dead are instances that were killed.
	dead map[string]bool
	// guard guards an instance that was started meanwhile.
	guard func(*fleet.Chat)
}

// perform raises a fresh fleet, promotes green while the deeds happen, and ends
// everything again.
func (e experiment) perform(ctx context.Context, sc *scenario) (p play, err error) {
	if sc.reconnect.Max > 0 {
		e.reconnect = sc.reconnect
	}
	ctx, cancel := context.WithCancelCause(ctx)
	s := &stage{
		setting: setting{blue: sc.blue, green: sc.green, capacity: sc.share(sc.capacity, e.clients), policy: sc.yaml(e)},
		dir:     filepath.Join(e.out, "logs", sc.name), bin: e.bin,
	}
	p = play{
		recording: recording{name: sc.name, clients: e.clients, funnel: e.cap, home: func(h clients.Hello) bool { return h.Version == sc.ends }},
		scenario:  sc, exp: e, stage: s, dead: map[string]bool{},
		guard: func(c *fleet.Chat) { s.guard(ctx, c.Process, cancel) },
	}
	defer s.strike()
	defer cancel(nil)
	swarm, leave, err := e.begin(ctx, s, cancel)
	if err != nil {
		return p, err
	}
	defer leave()
	p.swarm = swarm
	swarm.SlowestEcho() // while they connected does not count

	watching, stop := context.WithCancel(ctx)
	watched := make(chan []sight, 1) // one send
	go func() { watched <- watch(watching, s.api) }()
	defer stop()
	if err := p.act(ctx); err != nil {
		return p, err
	}
	if err := pause(ctx, e.calm); err != nil {
		return p, err
	}
	stop()
	p.watched = <-watched
	p.records, p.slowestEcho = swarm.Records(), swarm.SlowestEcho()
	return p, clients.WriteRecords(filepath.Join(s.dir, "records.jsonl"), p.records)
}

// yaml is the whole policy.
func (sc *scenario) yaml(e experiment) string {
	window := ""
	if sc.window > 0 {
		window = fmt.Sprintf(", window: %d", sc.share(sc.window, e.clients))
	}
	return fmt.Sprintf("{funnel: {close: %d, every: %s}%s%s}", e.cap.Close, e.cap.Every, window, sc.policy)
}

func (sc *scenario) share(of float64, clients int) int { return int(of * float64(clients)) }

// act promotes green, does the deeds and waits until the rollout is over and
// every client is where it belongs.
func (p *play) act(ctx context.Context) error {
	steps := (p.exp.clients + p.exp.cap.Close - 1) / p.exp.cap.Close
	limit := 10*time.Duration(steps)*p.exp.cap.Every.D() + time.Minute
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not over within %s", limit))
	defer cancel()
	if err := p.promote(ctx); err != nil {
		return err
	}
	for _, d := range p.deeds {
		if err := d.when(ctx, p); err != nil {
			return fmt.Errorf("%s: %w", d.what, err)
		}
		if err := d.do(ctx, p); err != nil {
			return fmt.Errorf("%s: %w", d.what, err)
		}
		p.done = append(p.done, time.Now())
	}
	err := p.stage.await(ctx, "the end of the rollout", func(st api.Status) bool {
		return st.Rollout == nil && st.Last != nil && st.Last.Outcome == p.outcome
	})
	if err != nil {
		return err
	}
	return p.swarm.WaitFor(ctx, func(c clients.Counts) bool {
		n := 0
		for id, held := range c.Instance {
			if chat := p.stage.chats[discovery.InstanceID(id)]; chat != nil && chat.Instance.Version == p.ends {
				n += held
			}
		}
		return n == p.exp.clients
	})
}

// promote promotes green, once rolloutd has seen what blue holds: it asks every
// few seconds.
func (p *play) promote(ctx context.Context) error {
	err := p.stage.await(ctx, "blue's counts", func(st api.Status) bool {
		held := st.Colours[0].Active
		return held != nil && *held == p.exp.clients
	})
	if err != nil {
		return err
	}
	command := []string{"promote", "green"}
	if p.tight {
		_, err := p.stage.ctl.Ctl(ctx, command...)
		if err == nil || !strings.Contains(err.Error(), "has room for") {
			return fmt.Errorf("promote without room should be refused: %v", err)
		}
		command = append(command, "--force")
	}
	p.began = time.Now()
	_, err = p.stage.ctl.Ctl(ctx, command...)
	return err
}

// sight is a change in what watch showed.
type sight struct {
	At      time.Time
	Rollout string
	Phase   state.Phase // of the rollout
	Code    rollout.Code
	Text    string
}

// watch notes what rolloutctl watch would show, until ctx ends.
func watch(ctx context.Context, client *api.Client) (seen []sight) {
	for world, err := range client.Watch(ctx, service) {
		if err != nil || len(world.Services) == 0 {
			return seen
		}
		st := world.Services[0]
		now := sight{At: world.At, Phase: state.Steady, Code: st.Reason.Code, Text: st.Reason.Text}
		if r := st.Rollout; r != nil {
			now.Rollout, now.Phase = r.ID, r.Phase
		}
		if last := len(seen) - 1; last < 0 || seen[last].Code != now.Code || seen[last].Rollout != now.Rollout || seen[last].Phase != now.Phase {
			seen = append(seen, now)
		}
	}
	return seen
}

// codes are those that watch showed while there was a rollout, in order.
func (p play) codes() (codes []rollout.Code) {
	for _, s := range p.watched {
		if s.Rollout != "" && (len(codes) == 0 || codes[len(codes)-1] != s.Code) {
			codes = append(codes, s.Code)
		}
	}
	return codes
}

// passing are codes that any rollout shows for a moment, or not, as it happens.
var passing = map[rollout.Code]bool{
	rollout.TargetClosed: true, rollout.Unconfirmed: true, rollout.GateOpen: true,
	rollout.FreshCounts: true, rollout.IsSoaking: true, rollout.IsSteady: true,
}

// story is the codes without the passing ones, in one line.
func (p play) story() string {
	var kept []string
	for _, c := range p.codes() {
		if !passing[c] && (len(kept) == 0 || kept[len(kept)-1] != string(c)) {
			kept = append(kept, string(c))
		}
	}
	return strings.Join(kept, " ")
}

// marks are the deeds, in seconds since the picture's zero.
func (p play) marks() (all []mark) {
	for i, at := range p.done {
		all = append(all, mark{at.Sub(p.start()).Seconds(), p.deeds[i].what})
	}
	return all
}
