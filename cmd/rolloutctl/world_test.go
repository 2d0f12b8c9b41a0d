package main

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/returns"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// then is when the scripted rollouts began, next when their next step comes: far
// away on both sides, so that what is printed does not depend on the day.
var (
	then = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	next = time.Date(2126, 1, 2, 12, 0, 0, 0, time.UTC)
)

// steady is a service with n instances of each colour.
func steady(name discovery.Service, n int) rollout.View {
	v := rollout.View{
		State:  state.New(name, discovery.Blue),
		Seen:   observed.Seen{Instances: map[discovery.InstanceID]observed.Sighting{}},
		Wish:   desired.Wish{Weights: map[discovery.Colour]units.Share{discovery.Blue: units.Whole}},
		Reason: rollout.Reason{Code: rollout.IsSteady, Text: "new connections go to blue"},
		Policy: policy.Default(),
	}
	for ci, c := range discovery.Colours {
		for i := range n {
			in := discovery.Instance{
				ID: discovery.InstanceID(fmt.Sprintf("%s-%c%d", name, c[0], i+1)), Colour: c, Health: discovery.Passing, Capacity: 500, Version: fmt.Sprintf("v%d", ci+1),
				Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(ci), byte(i + 1)}), 9000), Drain: fmt.Sprintf("http://10.0.%d.%d:9001", ci, i+1),
			}
			v.Seen.Fleet.Instances = append(v.Seen.Fleet.Instances, in)
			v.State.Members[in.ID] = state.Member{Identity: state.Identity{ID: in.ID, Colour: c, Addr: in.Addr, Drain: in.Drain}, Counts: state.Counts{Counted: true}}
			st := contract.Status{State: contract.Serving, Returned: new(uint64), Ticketed: new(uint64)}
			if c == discovery.Blue {
				st.Active, st.Accepted = 100, 120
			}
			v.Seen.Instances[in.ID] = observed.Sighting{At: then, Status: st}
		}
	}
	v.State.Proxies = []string{"edge-1", "edge-2"}
	v.Seen.Proxies = []observed.Proxy{{Node: "edge-1", Routes: true, Connected: true, Confirmed: true}, {Node: "edge-2", Routes: true, Connected: true, Confirmed: true}}
	return v
}

// draining is the same with a rollout that has moved part percent of it.
func draining(name discovery.Service, n, part int) rollout.View {
	v := steady(name, n)
	v.State.Epoch = 1
	v.State.Rollout = &state.Rollout{
		ID: string(name) + "-1", From: discovery.Blue, To: discovery.Green, Phase: state.Draining, Started: then, Since: then, Settled: then,
		Policy: policy.Default(), Steps: state.Steps{Step: uint64(part), StepAt: next}, Toll: state.Toll{Total: 100 * n}, Events: []state.Event{{At: then, Text: "promote green"}},
	}
	v.State.Rollout.Policy.Funnel = units.Funnel{Close: 10, Every: units.Duration(3 * time.Second)}
	for id, m := range v.State.Members {
		s := v.Seen.Instances[id]
		if m.Colour == discovery.Blue {
			s.Status = contract.Status{State: contract.Draining, Active: 100 - part, Accepted: 120, Evicted: uint64(part), Returned: new(uint64), Ticketed: new(uint64)}
			m.Ceiling = new(100 - part)
		} else {
			s.Status.Active, s.Status.Accepted, s.Status.Returned, s.PerSecond = part, uint64(part), new(uint64(part-1)), 1.25
			s.Status.Ticketed = s.Status.Returned
		}
		v.State.Members[id], v.Seen.Instances[id] = m, s
	}
	v.Wish.Weights = map[discovery.Colour]units.Share{discovery.Green: units.Whole}
	v.Reason = rollout.Reason{Code: rollout.IsDraining, Text: "10 connections go every 3s"}
	return v
}

// looped is a rollout with all of the closed loop: two of four blue instances
// are empty, the third goes, green refuses some, one instance died with what it
// held, and returns are estimated.
func looped(end time.Duration) rollout.View {
	v := draining("chat", 4, 40)
	r := v.State.Rollout
	r.Policy.Window, r.Policy.Deadline = 50, units.Duration(end)
	r.Policy.Stagger = policy.Stagger{Instances: units.Portion{Number: 1}, Soak: units.Duration(time.Minute)}
	r.Policy.Gates = []policy.Gate{{Name: "errors"}, {Name: "load"}}
	r.Batch, r.Pace = 3, state.Pace{Limit: 5, Why: "3 of 40 new connections were refused"}
	began, later := returns.Observation{Now: then, AsOf: then}, then.Add(time.Second)
	r.Lost, r.Accepted, r.Returns = 20, 230, new(returns.New(time.Minute).Observe(began).Observe(returns.Observation{Now: later, Evicted: 30, AsOf: later, Accepted: 2}))
	r.Returns.Seen = next // the estimate is kept up to date
	v.Reason = rollout.Reason{Code: rollout.GateClosed, Text: "waiting: gate errors is closed: 0.04 is not below 0.01"}
	v.Seen.Gates = map[string]observed.Reading{"errors": {Text: "gate errors is closed: 0.04 is not below 0.01", At: then}}
	for id, m := range v.State.Members {
		s := v.Seen.Instances[id]
		switch {
		case m.Colour == discovery.Green:
			s.Status.Returned, s.Status.Ticketed = nil, nil
		case id == "chat-b3":
			m.Turn, m.Ceiling, s.Status.Active, s.Status.Evicted = 3, new(55), 60, 40
		case id == "chat-b4":
			m.Ceiling, s.Status.Active, s.Status.Evicted = nil, 100, 0
		default:
			m.Turn, m.Ceiling, s.Status.Active, s.Status.Evicted = int(id[len(id)-1]-'0'), nil, 0, 100
		}
		v.State.Members[id], v.Seen.Instances[id] = m, s
	}
	return v
}

// inPlace is a rollout without a second fleet whose instances a hook ends.
func inPlace() rollout.View {
	v := draining("chat", 2, 40)
	r := v.State.Rollout
	r.Policy.Stagger, r.Batch, r.Spill = policy.Stagger{Instances: units.Portion{Number: 1}, InPlace: true}, 1, true
	r.Policy.Hook = &policy.Hook{URL: "http://127.0.0.1/end"}
	r.NeverBack = 1
	v.Reason = rollout.Reason{Code: rollout.HookFailed, Text: "waiting: the hook did not end chat-b1 (POST 127.0.0.1 answers 500); it is called again at 12:00:30 UTC"}
	m := v.State.Members["chat-b1"]
	m.Turn, m.Ceiling, m.Drain, m.Hooked, m.HookedAt = 1, nil, "", 2, then
	v.State.Members["chat-b1"] = m
	v.Seen.Hooks = map[discovery.InstanceID]observed.HookRun{"chat-b1": {Rollout: "chat-1", Attempt: 2, Done: true, Err: "POST 127.0.0.1 answers 500", At: then}}
	v.Seen.Loads = map[observed.Place]observed.Load{{Colour: discovery.Blue, Addr: m.Addr}: {Held: 60, At: then}}
	delete(v.Seen.Instances, "chat-b1")
	return v
}

// finished is the same after the rollout.
func finished(name discovery.Service, n int, outcome state.Outcome) rollout.View {
	v := steady(name, n)
	live := discovery.Green
	if outcome == state.Aborted {
		live = discovery.Blue
	}
	v.State.Live = live
	v.Wish.Weights = map[discovery.Colour]units.Share{live: units.Whole}
	v.State.History = []state.Record{{
		ID: string(name) + "-1", From: discovery.Blue, To: discovery.Green, Outcome: outcome, Started: then, Ended: then.Add(95 * time.Second), Evicted: 300,
		Returned: new(uint64(299)), NeverBack: new(uint64(1)), Events: []state.Event{{At: then, Text: "promote green"}, {At: then.Add(95 * time.Second), Text: "done"}},
	}}
	v.Reason.Text = fmt.Sprintf("new connections go to %s", live)
	return v
}

// asked is the same where the rollout had overrides, and is the n-th.
func asked(v rollout.View, n int) rollout.View {
	last := &v.State.History[0]
	last.ID, last.Overrides = fmt.Sprintf("chat-%d", n), policy.Overrides{Close: new(5), Soak: new(units.Duration(time.Minute))}
	return v
}

// superseded is what is left of a rollout after the promotion of a newer release.
func superseded() rollout.View {
	v := finished("chat", 2, state.Superseded)
	v.State.History[0].Lost = 12
	v.State.History[0].Events[1].Text = "superseded by a newer blue release: chat-b3"
	return v
}

// troubled is a rollout with everything wrong at once, some of it hostile.
func troubled() rollout.View {
	v := draining("chat", 2, 40)
	v.State.Rollout.Paused, v.State.Rollout.Forced = true, true
	v.State.Rollout.LeftBehind = []string{"edge-9"}
	v.Reason = rollout.Reason{Code: rollout.TargetSick, Text: "waiting: green is unhealthy"}
	v.Seen.Fleet.Err = "consul: no leader\x1b[2J"
	v.Seen.Fleet.Suspect = "2 of 4 instances vanished"
	v.Seen.Fleet.LeftOut = []discovery.LeftOut{{ID: "stray", Reason: "no colour tag"}}
	v.Seen.Unpublished = "the guard refused a listener change"
	v.Seen.Proxies[1].Nack = "weights\nsum to 0"
	s := v.Seen.Instances["chat-b1"]
	s.Err = "dial: timeout"
	v.Seen.Instances["chat-b1"] = s
	v.Seen.Fleet.Instances[2].Health = discovery.Critical
	m := v.State.Members["chat-b2"]
	m.Departed = then
	v.State.Members["chat-b2"] = m
	delete(v.Seen.Instances, "chat-b2")
	v.Seen.Loads = map[observed.Place]observed.Load{
		{Colour: discovery.Blue, Addr: m.Addr}:                           {Held: 60, At: then, Silent: []string{"edge-2"}},
		{Colour: discovery.Green, Addr: v.State.Members["chat-g1"].Addr}: {Held: 25, At: then, Admissions: observed.Admissions{Accepted: 51, Refused: 3}, PerSecond: 1.5},
	}
	v.Seen.Witnesses = map[discovery.Colour]observed.Witness{
		discovery.Blue: {Active: 120, At: then, Missing: []string{"edge-2"}}, discovery.Green: {Missing: []string{"edge-2"}},
	}
	v.Differences = map[discovery.InstanceID]rollout.Difference{"chat-g1": {Said: 40, Reported: 25, Since: then}}
	return v
}

func worlds(name string) map[discovery.Service]rollout.View {
	all := map[discovery.Service]rollout.View{}
	for _, v := range map[string][]rollout.View{
		"steady":        {steady("chat", 2)},
		"draining":      {draining("chat", 2, 40)},
		"troubled":      {troubled()},
		"done":          {finished("chat", 2, state.Done)},
		"aborted":       {finished("chat", 2, state.Aborted)},
		"superseded":    {superseded()},
		"looped":        {looped(30 * time.Minute)},
		"in-place":      {inPlace()},
		"two":           {steady("chat", 1), draining("mail", 1, 40)},
		"aborted-asked": {asked(finished("chat", 2, state.Aborted), 1)},
		"done-2":        {asked(finished("chat", 2, state.Done), 2)},
		"two-done":      {finished("chat", 1, state.Done), finished("mail", 1, state.Aborted)},
	}[name] {
		all[v.State.Service] = v
	}
	return all
}

func edges() []api.Proxy {
	return []api.Proxy{
		{Node: "edge-1", Connected: true, Since: then, Address: "10.1.0.1:40000", UserAgent: "envoy 1.39.3", Holds: []api.Holding{{Type: "cluster", Resources: 2}, {Type: "route", Resources: 1}}},
		{Node: "edge-2", Since: then, Address: "10.1.0.2:40000", NackCount: 3, Nacks: []api.Rejection{{Type: "route", Names: []string{"chat"}, Message: "sum of weights is 0", At: then}},
			Withheld: []api.Withheld{{Ref: "listener/web", Why: "it would be removed"}},
			Reports:  api.Reporting{Loads: new(then), Trouble: "load report of chat-blue: it names no endpoints", Refused: 7, Ignored: []string{"other"}}},
	}
}
