package rollout_test

import (
	"net/netip"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// play is one rollout in the small world, with the moments at which its state is
// held.
type play struct {
	blue, green, connections int
	do                       func(g *ground, moment func(string))
}

var plays = map[string]play{
	"promotion": {2, 2, 61, func(g *ground, moment func(string)) {
		moment("new")
		g.look()
		moment("steady")
		g.policy.Canary, g.policy.Soak, g.policy.Grace, g.policy.Slow = 500, 5*second, 2*second, second
		g.deaf = true
		g.promote(discovery.Green)
		moment("opening")
		g.deaf = false
		g.pass(tick)
		g.deaf = true
		g.pass(tick)
		moment("canary")
		g.deaf = false
		g.pass(tick)
		moment("canary, acknowledged")
		g.until("the soak is over", func() bool { g.deaf = g.state.Phase() == state.Confirming; return g.deaf })
		moment("confirming")
		g.machines["b2"].deaf = true
		g.deaf = false
		g.pass(tick)
		moment("confirming, acknowledged")
		g.untilPhase(state.Draining)
		moment("draining, a gate open")
		g.machines["b2"].deaf = false
		g.untilCode(rollout.InGrace)
		moment("draining, in grace")
		g.untilStep(2)
		g.pass(1300 * time.Millisecond)
		moment("draining, in a step")
		g.pause()
		moment("paused")
		g.pass(time.Second)
		g.resume()
		g.do(rollout.SetPace{Service: "chat", Funnel: units.Funnel{Close: 7, Every: 2 * second}})
		moment("another pace")
		g.machines["g1"].status.HandshakeMS = new(3000)
		g.untilStep(6)
		g.pass(tick)
		moment("slowed down")
		g.machines["g1"].status.HandshakeMS = nil
		g.untilPhase(state.Soaking)
		moment("soaking")
		g.untilPhase(state.Steady)
		moment("done")
		g.promote(discovery.Blue)
		g.untilPhase(state.Steady)
		moment("and back")
	}},
	"aborts": {2, 2, 30, func(g *ground, moment func(string)) {
		g.policy.Canary, g.policy.Soak = 1000, 5*second
		back := func(from string) {
			g.abort()
			moment("aborting " + from)
			g.untilPhase(state.Steady)
		}
		g.look()
		g.deaf = true
		g.do(rollout.Promote{Service: "chat", Target: discovery.Green, Overrides: spelled(g.policy), Force: true, Message: "CHG-7"})
		g.deaf = false
		back("while opening")
		g.promote(discovery.Green)
		g.untilPhase(state.Shifting)
		back("while shifting")
		g.policy.Canary, g.policy.Soak = 0, 0
		g.promote(discovery.Green)
		g.untilPhase(state.Confirming)
		back("while confirming")
		g.promote(discovery.Green)
		g.untilStep(2)
		g.pass(time.Second)
		g.abort()
		moment("aborting while draining")
		g.untilStep(1)
		g.pass(300 * time.Millisecond)
		moment("draining the way back")
		g.untilPhase(state.Soaking)
		moment("soaking the way back")
		g.untilPhase(state.Steady)
		g.away = time.Minute
		g.promote(discovery.Green)
		g.untilPhase(state.Soaking)
		back("while soaking")
		moment("aborted")
	}},
	"batches": {4, 2, 40, func(g *ground, moment func(string)) {
		g.policy.Stagger = policy.Stagger{Instances: units.Portion{Number: 2}, Soak: 10 * second, First: []string{"b4"}}
		g.policy.Order = contract.Oldest
		g.look()
		g.promote(discovery.Green)
		g.untilStep(1)
		g.pass(time.Second)
		moment("the first batch")
		g.untilCode(rollout.BatchSoak)
		moment("between the batches")
		g.until("the second batch", func() bool { return g.state.Rollout.Batch == 2 && g.state.Rollout.Step > 2 })
		moment("the second batch")
		g.untilPhase(state.Steady)
		moment("done")
	}},
	"in place": {3, 1, 30, func(g *ground, moment func(string)) {
		g.policy.Stagger = policy.Stagger{Instances: units.Portion{Share: 2500}, InPlace: true}
		g.policy.Capacity, g.policy.Headroom = 12, 9000
		g.policy.Deadline, g.policy.Pressure, g.policy.HurryCap, g.policy.KillAfter = 20*second, policy.Hurry, 20, 60*second
		g.look()
		g.promote(discovery.Green)
		g.untilStep(1)
		g.pass(time.Second)
		moment("hurrying")
		g.untilCode(rollout.NoRoom)
		g.pass(3 * time.Second)
		moment("spilling")
		g.join(discovery.Green, 2)
		g.join(discovery.Green, 3)
		g.machines["b1"].gone, g.machines["b1"].dead = true, true
		g.until("another batch", func() bool { return g.state.Rollout.Batch == 2 })
		moment("replaced")
	}},
	"window": {2, 2, 5000, func(g *ground, moment func(string)) {
		g.policy.Window, g.policy.Funnel.Close, g.policy.ReturnTimeout = 400, 200, 20*second
		g.machines["g1"].tells, g.machines["g2"].tells = false, false
		g.organic = 500 * time.Millisecond
		g.look()
		g.promote(discovery.Green)
		g.untilCode(rollout.Learning)
		g.pass(time.Second)
		moment("learning")
		g.untilStep(1)
		g.pass(time.Second)
		moment("the first step")
		g.untilStep(5)
		g.pass(200 * time.Millisecond)
		moment("estimated")
		g.away, g.organic, g.coming = 40*time.Second, 0, nil
		g.until("doubt", func() bool { return g.state.Rollout.Returns.Doubt })
		moment("fewer return")
		g.untilCode(rollout.NotReturning)
		g.pass(3 * time.Second)
		moment("nobody returns")
		g.organic, g.away = 500*time.Millisecond, 2*time.Second
		for i := range g.coming {
			g.coming[i] = g.now.Add(time.Second + time.Duration(i)*5*time.Millisecond)
		}
		g.until("they come again", func() bool { return !g.state.Rollout.Returns.LearnAt.IsZero() })
		moment("they come again")
		g.untilPhase(state.Steady)
		moment("done")
	}},
	"own returns": {2, 1, 20, func(g *ground, moment func(string)) {
		g.look()
		g.promote(discovery.Green)
		g.untilStep(2)
		for key, m := range g.state.Members { // more said to return than were let go
			if m.Colour == discovery.Green {
				m.Doubted = true // and it joined beside another of that address
				g.state.Members[key] = m
			}
		}
		g.state.Rollout.Surplus = g.now
		moment("more return")
	}},
	"never back": {2, 1, 20, func(g *ground, moment func(string)) {
		g.policy.ReturnTimeout = 8 * second
		g.away = time.Hour
		g.look()
		g.promote(discovery.Green)
		g.untilStep(2)
		g.pass(6 * time.Second)
		moment("some are not waited for")
		g.untilPhase(state.Steady)
		moment("done")
	}},
	"untold": {2, 1, 30, func(g *ground, moment func(string)) {
		g.policy.ReturnTimeout = 4 * second
		g.machines["g1"].tells = false
		g.away = time.Hour
		g.look()
		g.promote(discovery.Green)
		g.untilStep(2)
		g.crash(g.machines["b2"])
		g.untilPhase(state.Soaking)
		moment("nobody is back")
		g.untilPhase(state.Steady)
		moment("done")
	}},
	"refused": {2, 2, 60, func(g *ground, moment func(string)) {
		g.machines["g1"].Capacity, g.machines["g2"].Capacity = 25, 25
		g.machines["b1"].status.Refused = 7
		g.look()
		g.machines["b1"].status.Refused += 6
		g.pass(2 * time.Second)
		g.promote(discovery.Green)
		g.machines["b1"].status.Refused = 9
		g.untilStep(1)
		g.machines["g2"].full = true
		g.seen.Witnesses = map[discovery.Colour]observed.Witness{discovery.Green: {Refused: 4}}
		g.untilStep(4)
		g.pass(time.Second)
		moment("green refuses")
		g.machines["g1"].full = true
		g.until("standing still", func() bool { return g.state.Rollout.Pace.Stopped })
		moment("green refuses everybody")
		g.machines["g1"].full, g.machines["g2"].full = false, false
		g.machines["g1"].Capacity, g.machines["g2"].Capacity = 50, 50
		g.untilPhase(state.Steady)
		moment("done")
	}},
	"lost": {4, 2, 60, func(g *ground, moment func(string)) {
		g.look()
		g.promote(discovery.Green)
		g.untilStep(1)
		g.pass(time.Second)
		g.crash(g.machines["b2"])
		g.machines["b3"].gone = true
		g.seen.Proxies[1] = observed.Proxy{Node: "edge-2", Addr: edge(2), Routes: true, Lost: g.now}
		g.pass(time.Second)
		moment("one died, one left, a proxy went")
		// b4 moves while its former process still runs.
		was := g.machines["b4"]
		delete(g.machines, "b4")
		moved := g.join(discovery.Blue, 9)
		delete(g.machines, "b9")
		moved.ID, was.gone = "b4", true
		g.machines["b4"], g.machines["b4@10.0.1.4:9000/blue"] = moved, was
		g.join(discovery.Blue, 7)
		g.pass(time.Second)
		moment("one moved, a fresh one")
		g.machines["b2"].gone = true
		g.pass(32 * time.Second)
		moment("left behind")
		g.machines["b1"].deaf = true
		g.pass(20 * time.Second)
		g.machines["b1"].deaf = false
		g.untilPhase(state.Steady)
		moment("done")
	}},
	"superseded": {2, 2, 60, func(g *ground, moment func(string)) {
		b1 := g.machines["b1"]
		b1.Node, b1.Version, b1.status.Boot = "n1", "v41", "Xk3d"
		g.look()
		g.promote(discovery.Green)
		g.untilStep(3)
		g.join(discovery.Blue, 3)
		g.join(discovery.Blue, 4)
		g.pass(2 * time.Second)
		moment("a newer blue")
		g.promote(discovery.Blue)
		moment("superseded")
		g.untilStep(2)
		g.pass(time.Second)
		moment("both let go")
		g.untilPhase(state.Steady)
		moment("done")
		next := g.state.Clone()
		next.Retired = true
		g.remember(next)
		for _, m := range g.machines {
			m.gone = true
		}
		g.pass(time.Second)
		moment("retired")
		for _, m := range g.machines {
			m.status.Active = 0
		}
		g.pass(10 * time.Second)
		moment("retired and empty")
	}},
	"hooks": {3, 2, 24, func(g *ground, moment func(string)) {
		g.policy.Hook = &policy.Hook{Command: []string{"stop", "now"}, Timeout: 30 * second}
		for _, key := range []discovery.InstanceID{"b1", "b2", "b3"} {
			g.machines[key].Drain = ""
		}
		g.reported = true
		g.look()
		g.promote(discovery.Green)
		g.until("a hook", func() bool { return len(g.seen.Hooks) > 0 })
		moment("called")
		g.untilCode(rollout.HookRunning)
		moment("running")
		g.hookErr = "exit status 1"
		g.untilCode(rollout.HookFailed)
		moment("failed")
		g.hookErr = ""
		g.reported = false
		g.untilCode(rollout.Unreported)
		moment("unreported")
		g.reported = true
		g.until("called again", func() bool {
			for _, m := range g.state.Members {
				if m.Hooked == 2 {
					return true
				}
			}
			return false
		})
		moment("called again")
		g.policy.Hook = &policy.Hook{URL: "http://hooks.example/stop"}
		g.untilPhase(state.Steady)
		moment("done")
	}},
	"gates": {2, 2, 30, func(g *ground, moment func(string)) {
		g.policy.Gates = []policy.Gate{
			{Name: "errors", Query: "rate(errors)", Below: new(0.5), Above: new(0.25), Timeout: 2 * second},
			{Name: "smoke", Command: []string{"smoke", "chat"}}, {Name: "page", URL: "http://127.0.0.1:1/ok"},
			{Name: "freeze", URL: "http://127.0.0.1:1/may", At: []policy.Moment{policy.AtStart}},
		}
		g.policy.AbortAfter = 20 * second
		for _, gate := range g.policy.Gates {
			g.seen.Gates[gate.Name] = observed.Reading{Open: true, Text: "gate " + gate.Name + " is open"}
		}
		g.look()
		g.promote(discovery.Green)
		g.untilStep(1)
		g.seen.Gates["errors"] = observed.Reading{Text: "gate errors is closed: 0.7 is not below 0.5"}
		g.untilCode(rollout.GateClosed)
		moment("closed")
		g.until("it goes back", func() bool { return g.state.Rollout.Aborting })
		moment("going back by itself")
		g.untilPhase(state.Steady)
		moment("aborted")
	}},
	"asked": {2, 2, 40, func(g *ground, moment func(string)) {
		g.policy.Notice, g.policy.Double = 9*second, 10
		for _, name := range []discovery.InstanceID{"b1", "b2"} {
			g.machines[name].status.Can = []contract.Ability{contract.CanAsk}
		}
		g.away = 8 * time.Second
		g.look()
		g.promote(discovery.Green)
		g.untilStep(1)
		g.pass(2 * time.Second)
		moment("in mid notice")
		g.untilCode(rollout.WindowFull)
		moment("as many as may be connected twice")
		g.pause()
		g.pass(5 * time.Second)
		moment("paused")
		g.resume()
		g.untilPhase(state.Steady)
		moment("done")
	}},
	"ending": {1, 1, 5, func(g *ground, moment func(string)) {
		g.look()
		g.promote(discovery.Green)
		g.untilStep(1)
		g.machines["b1"].status.Requests, g.machines["b1"].status.Lingering = 1, 2
		g.untilCode(rollout.Ending)
		moment("nobody lasts, and some have not ended")
		g.machines["b1"].status.Requests, g.machines["b1"].status.Lingering = 0, 0
		g.untilPhase(state.Steady)
	}},
	"many events": {1, 1, 5, func(g *ground, moment func(string)) {
		g.machines["b1"].Addr = netip.MustParseAddrPort("[2001:db8::1]:9000")
		g.policy.Hook = &policy.Hook{URL: "http://hooks.example/stop"}
		g.look()
		g.promote(discovery.Green)
		g.untilPhase(state.Draining)
		for range 120 {
			g.pause()
			g.resume()
		}
		g.log.Reset()
		moment("omitted")
		g.untilPhase(state.Steady)
		moment("done")
	}},
}

// spelled is the policy said once more by the one who promotes.
func spelled(p policy.Policy) policy.Overrides {
	return policy.Overrides{
		Close: &p.Funnel.Close, Every: &p.Funnel.Every, Grace: &p.Grace, Canary: &p.Canary, Soak: &p.Soak, Window: &p.Window,
		Stagger: &p.Stagger.Instances, StaggerSoak: &p.Stagger.Soak, Deadline: &p.Deadline,
	}
}
