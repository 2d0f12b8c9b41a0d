package main

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// reinforcement is how many instances green gets when it has no room.
const reinforcement = 2

// scenarios are all there are, in the order of --scenario all.
var scenarios = []*scenario{
	{
		name: "sick-green", said: "A third of green is killed, and comes back",
		blue: 3, green: 3,
		deeds: []deed{
			{"chat-g3 killed", moved(0.4), killed("chat-g3")},
			{"chat-g3 back", later(8), revived("chat-g3")},
		},
		reasons: is(`settling draining target_sick draining`),
		outcome: state.Done, ends: "v2", most: 1, mean: 1,
		holds: func(p play) error { return p.closesNothing(p.done[0].Add(p.exp.cap.Every.D()), p.done[1]) },
	},
	{
		name: "slow-clients", said: "Clients take 3 to 6 s, the window is 30 %",
		blue: 3, green: 3, window: 0.3, reconnect: clients.Reconnect{Base: 3 * time.Second, Max: 3 * time.Second, Least: 3 * time.Second},
		reasons: is(`settling( learning)? draining( window_full draining)+`),
		outcome: state.Done, ends: "v2", most: 1, mean: 1,
		holds: play.keepsWindow,
	},
	{
		name: "no-room", said: "Green has room for 60 %, then more",
		blue: 3, green: 2, capacity: 0.3, tight: true,
		deeds: []deed{
			{"2 green instances more", afterwards(3, says(rollout.NoRoom)), more(discovery.Green, reinforcement, "v2")},
		},
		reasons: is(`settling draining no_room draining`),
		outcome: state.Done, ends: "v2", most: 1, mean: 1,
		holds: play.keepsRoom,
	},
	{
		name: "staggered", said: "One blue instance after the other, soak 2 s",
		blue: 4, green: 2, policy: ", stagger: {instances: 1, soak: 2s}",
		reasons: is(`settling draining( batch_soak draining){3}`),
		outcome: state.Done, ends: "v2", most: 1, mean: 1,
		holds: func(p play) error { return p.oneByOne(2 * time.Second) },
	},
	{
		name: "in-place", said: "In place: blue replaced one by one",
		blue: 4, green: 1, capacity: 0.3, policy: ", stagger: {instances: 1, in_place: true}",
		deeds: []deed{
			{"blue → green", emptied(), replaced()},
			{"blue → green", emptied(), replaced()},
			{"blue → green", emptied(), replaced()},
		},
		reasons: is(`settling draining( no_room draining){3}`),
		outcome: state.Done, ends: "v2", most: 2, mean: 1.05,
		holds: func(p play) error { return p.oneByOne(0) },
	},
	{
		name: "abort", said: "Aborted at half",
		blue: 3, green: 3,
		deeds:   []deed{{"abort", moved(0.5), ctl("abort")}},
		reasons: is(`settling draining settling draining`),
		outcome: state.Aborted, ends: "v1", most: 2, mean: 1.25,
	},
	{
		name: "dead-blue", said: "A blue instance dies, the window is 40 %",
		blue: 3, green: 3, window: 0.4, reconnect: clients.Reconnect{Base: 6 * time.Second, Max: 6 * time.Second},
		deeds:   []deed{{"chat-b3 killed", moved(0.3), killed("chat-b3")}},
		reasons: is(`settling( learning)? draining( window_full draining)+( unreachable)?`),
		outcome: state.Done, ends: "v2", most: 1, mean: 1,
		holds: play.keepsWindow,
	},
	{
		name: "supersede", said: "A third release in the middle",
		blue: 3, green: 3,
		deeds: []deed{
			{"3 blue instances of v3", moved(0.4), more(discovery.Blue, 3, "v3")},
			{"promote blue", afterwards(1, known(6)), ctl("promote", "blue")},
		},
		reasons: is(`settling draining settling draining`),
		outcome: state.Done, ends: "v3", most: 2, mean: 1.75,
		holds: play.neverOntoTheLeaving,
	},
}

// is matches a whole story.
func is(codes string) *regexp.Regexp { return regexp.MustCompile("^" + codes + "$") }

// moved is when that share of the clients has left blue.
func moved(share float64) func(context.Context, *play) error {
	return func(ctx context.Context, p *play) error {
		return p.swarm.WaitFor(ctx, func(c clients.Counts) bool {
			return float64(c.Colour["blue"]) <= (1-share)*float64(p.exp.clients)
		})
	}
}

// later is so many steps after the deed before.
func later(steps int) func(context.Context, *play) error {
	return func(ctx context.Context, p *play) error { return pause(ctx, time.Duration(steps)*p.exp.cap.Every.D()) }
}

// afterwards is so many steps after a moment.
func afterwards(steps int, when func(context.Context, *play) error) func(context.Context, *play) error {
	return func(ctx context.Context, p *play) error {
		if err := when(ctx, p); err != nil {
			return err
		}
		return later(steps)(ctx, p)
	}
}

// says is when watch shows the reason.
func says(c rollout.Code) func(context.Context, *play) error {
	return func(ctx context.Context, p *play) error {
		return p.stage.await(ctx, string(c), func(st api.Status) bool { return st.Reason.Code == c })
	}
}

// known is when rolloutd knows so many blue instances that serve or drain.
func known(blue int) func(context.Context, *play) error {
	return func(ctx context.Context, p *play) error {
		return p.stage.await(ctx, fmt.Sprintf("%d blue instances", blue), func(st api.Status) bool {
			n := 0
			for _, in := range st.Instances {
				if in.Colour == discovery.Blue && in.State != "" {
					n++
				}
			}
			return n == blue
		})
	}
}

// emptied is when the rollout waits for a blue instance to be replaced.
func emptied() func(context.Context, *play) error {
	return afterwards(1, func(ctx context.Context, p *play) error {
		return p.stage.await(ctx, "an emptied blue instance", func(st api.Status) bool {
			_, ok := p.empty(st)
			return ok && st.Reason.Code == rollout.NoRoom
		})
	})
}

// empty finds a blue instance that has drained and is still registered.
func (p *play) empty(st api.Status) (discovery.InstanceID, bool) {
	for _, in := range st.Instances {
		if in.Colour == discovery.Blue && in.Batch > 0 && p.stage.find(in.ID) >= 0 && in.Held != nil && *in.Held == 0 {
			return in.ID, true
		}
	}
	return "", false
}

// killed ends an instance with SIGKILL; the registry's health check notices.
func killed(id discovery.InstanceID) func(context.Context, *play) error {
	return func(_ context.Context, p *play) error {
		p.dead[string(id)] = true
		p.stage.end(id, kill)
		return p.stage.healthy(id, discovery.Critical)
	}
}

// revived starts it again, and the health check notices that, too.
func revived(id discovery.InstanceID) func(context.Context, *play) error {
	return func(ctx context.Context, p *play) error {
		c := p.stage.chats[id]
		if err := c.Start(ctx); err != nil {
			return err
		}
		p.guard(c)
		return p.stage.healthy(id, discovery.Passing)
	}
}

// more starts and registers instances.
func more(colour discovery.Colour, n int, version string) func(context.Context, *play) error {
	return func(ctx context.Context, p *play) error {
		for range n {
			c, err := p.stage.start(ctx, colour, version)
			if err != nil {
				return err
			}
			p.guard(c)
		}
		return p.stage.register()
	}
}

// replaced deregisters and stops an emptied blue instance, and starts a green one
// in its place.
func replaced() func(context.Context, *play) error {
	return func(ctx context.Context, p *play) error {
		st, err := p.stage.api.Service(ctx, service)
		if err != nil {
			return err
		}
		id, ok := p.empty(st)
		if !ok {
			return fmt.Errorf("no blue instance is empty any more")
		}
		if err := p.stage.deregister(id); err != nil {
			return err
		}
		p.stage.end(id, stop)
		return more(discovery.Green, 1, "v2")(ctx, p)
	}
}

// ctl is a command of the operator.
func ctl(args ...string) func(context.Context, *play) error {
	return func(ctx context.Context, p *play) error {
		_, err := p.stage.ctl.Ctl(ctx, args...)
		return err
	}
}
