package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// Scenarios are the stories of the closed loop.
var Scenarios = []Scenario{
	{Name: "undisturbed", Live: discovery.Green, conf: base},
	{
		Name: "late-orders", Live: discovery.Green,
		conf: with(func(c *Config) { c.Jitter = 40 * time.Millisecond }),
	},
	{
		Name: "sick-green", Live: discovery.Green, Shows: []rollout.Code{rollout.TargetSick},
		conf: base, play: func(w *World) { w.half(w.sicken) },
	},
	{
		Name: "slow-clients", Live: discovery.Green,
		conf: with(func(c *Config) {
			c.Back = uniform(40 * time.Second)
			c.Policy.Window = units.Window(c.Policy.Funnel.Close * 4)
		}),
	},
	{
		Name: "lost-clients", Live: discovery.Green,
		conf: with(func(c *Config) {
			c.Never = 0.05
			c.Back = exponential(5 * time.Second)
			c.Policy.Window = units.Window(c.Policy.Funnel.Close * 4)
		}),
	},
	{
		Name: "untold", Live: discovery.Green, Shows: []rollout.Code{rollout.Learning},
		conf: with(func(c *Config) {
			c.Never = 0.05
			c.Tells = Nothing
			c.Organic = float64(c.Connections) / 30_000
			c.Back = exponential(5 * time.Second)
			c.Policy.Window = units.Window(c.Policy.Funnel.Close * 3)
		}),
	},
	{
		Name: "dead-blue", Live: discovery.Green, Shows: []rollout.Code{rollout.WindowFull},
		conf: with(func(c *Config) {
			c.Back = exponential(10 * time.Second)
			c.Policy.Window = units.Window(c.Policy.Funnel.Close * 4)
		}),
		play: func(w *World) { w.half(w.crash) },
	},
	{
		Name: "no-room", Live: discovery.Green, Shows: []rollout.Code{rollout.NoRoom}, force: true,
		conf: with(func(c *Config) {
			c.Policy.Headroom = 9000
			c.GreenCapacity = c.Connections / c.Blue * 10 / 9
			c.Green = c.Green * 7 / 10
		}),
		play: func(w *World) {
			w.when(func() bool { return w.reason.Code == rollout.NoRoom }, func() {
				w.after(30*time.Second, func() { w.grow(w.conf.Blue - w.conf.Green + 1) })
			})
		},
	},
	{
		Name: "abort", Live: discovery.Blue, Mean: 1.1,
		conf: base, play: func(w *World) {
			w.half(func() { w.command(rollout.Abort{Service: "chat"}) })
		},
	},
	{
		Name: "abort-window", Live: discovery.Blue, Mean: 1.1,
		conf: with(func(c *Config) {
			c.Back = exponential(10 * time.Second)
			c.Policy.Window = units.Window(c.Policy.Funnel.Close * 3)
		}),
		play: func(w *World) { w.half(func() { w.command(rollout.Abort{Service: "chat"}) }) },
	},
	{
		Name: "staggered", Live: discovery.Green, Shows: []rollout.Code{rollout.BatchSoak},
		conf: with(func(c *Config) {
			c.Policy.Stagger = policy.Stagger{Instances: units.Portion{Share: 1000}, Soak: units.Duration(5 * time.Second)}
		}),
	},
	{
		Name: "in-place", Live: discovery.Green, Mean: 1.05,
		conf: inPlace(20, 110),
		play: func(w *World) { w.chores = w.replace },
	},
	{
		Name: "in-place-tight", Live: discovery.Green, Mean: 1.05,
		conf: inPlace(40, 101),
		play: func(w *World) { w.chores = w.replace },
	},
	{
		Name: "supersede", Live: discovery.Blue, Mean: 1.55,
		conf: base, play: func(w *World) { w.half(w.supersede) },
		ends: func(w *World) error {
			for _, in := range w.Fleet.instances[:w.conf.Blue] {
				if in.total > 0 {
					return fmt.Errorf("%s of the first release still holds %d", in.ID, in.total)
				}
			}
			return nil
		},
	},
	{
		Name: "supersede-window", Live: discovery.Blue, Mean: 1.6,
		conf: with(func(c *Config) {
			c.Back = uniform(40 * time.Second)
			c.Policy.Window = units.Window(c.Policy.Funnel.Close * 4)
		}),
		play: func(w *World) { w.half(w.supersede) },
	},
	{
		Name: "green-refuses", Live: discovery.Green,
		conf: base, play: func(w *World) {
			w.half(func() {
				w.trouble()
				w.Fleet.sulk = 0.3
				w.after(time.Minute, func() { w.Fleet.sulk = 0 })
			})
		},
	},
	{
		Name: "green-is-slow", Live: discovery.Green,
		conf: with(func(c *Config) { c.Policy.Slow = units.Duration(200 * time.Millisecond) }),
		play: func(w *World) {
			w.half(func() {
				w.trouble()
				w.Fleet.slow = time.Second
				w.after(time.Minute, func() { w.Fleet.slow = 0 })
			})
		},
	},
	{
		Name: "gate", Live: discovery.Green, Shows: []rollout.Code{rollout.GateClosed},
		conf: with(func(c *Config) { c.Policy.Gates = gates() }),
		play: func(w *World) {
			w.half(func() { w.closeGate(time.Minute) })
		},
	},
	{
		Name: "gate-aborts", Live: discovery.Blue, Shows: []rollout.Code{rollout.GateClosed}, Mean: 1.1,
		conf: with(func(c *Config) {
			c.Policy.Gates, c.Policy.AbortAfter = gates(), units.Duration(30*time.Second)
		}),
		play: func(w *World) {
			w.half(func() { w.closeGate(time.Hour) })
		},
	},
	{
		Name: "hurry", Live: discovery.Green, Shows: []rollout.Code{rollout.Paused}, Within: 330 * time.Second,
		conf: with(func(c *Config) {
			c.Policy.Deadline, c.Policy.Pressure = units.Duration(330*time.Second), policy.Hurry
			c.Policy.HurryCap = 2 * c.Policy.Funnel.Close
		}),
		play: func(w *World) {
			w.half(func() {
				w.command(rollout.Pause{Service: "chat"})
				w.after(time.Minute, func() {
					w.promises.cap = w.Policy.HurryCap
					w.command(rollout.Resume{Service: "chat"})
				})
			})
		},
	},
}

// inPlace is no second fleet: of so many instances one is green in the beginning,
// with so many percent of the capacity that they need on average. A twentieth of
// the old ones drains at a time.
func inPlace(oneIn, percent int) func(Size) Config {
	return func(s Size) Config {
		c := base(s)
		c.Green = s.Instances / oneIn
		c.Blue = s.Instances - c.Green
		c.GreenCapacity = c.Connections / c.Blue * percent / 100
		c.Policy.Stagger = policy.Stagger{Instances: units.Portion{Share: 500}, InPlace: true}
		return c
	}
}

// with is base with a change.
func with(change func(*Config)) func(Size) Config {
	return func(s Size) Config {
		c := base(s)
		change(&c)
		return c
	}
}

func exponential(mean time.Duration) func(*rand.Rand) time.Duration {
	return func(r *rand.Rand) time.Duration { return time.Duration(r.ExpFloat64() * float64(mean)) }
}

func uniform(most time.Duration) func(*rand.Rand) time.Duration {
	return func(r *rand.Rand) time.Duration { return time.Duration(r.Int64N(int64(most))) }
}

func gates() []policy.Gate {
	return []policy.Gate{{Name: "errors", Query: "rate(errors[1m])", Below: new(0.01)}}
}
