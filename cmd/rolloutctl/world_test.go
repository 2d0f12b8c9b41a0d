package main

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/drain"
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
		State:  rollout.NewState(name, discovery.Blue),
		Seen:   rollout.Seen{Instances: map[discovery.InstanceID]rollout.Sighting{}},
		Wish:   rollout.Wish{Weights: map[discovery.Colour]rollout.Share{discovery.Blue: rollout.Whole}},
		Reason: rollout.Reason{Code: rollout.IsSteady, Text: "new connections go to blue"},
		Policy: rollout.DefaultPolicy(),
	}
	for ci, c := range discovery.Colours {
		for i := range n {
			in := discovery.Instance{
				ID: discovery.InstanceID(fmt.Sprintf("%s-%c%d", name, c[0], i+1)), Colour: c, Health: discovery.Passing, Capacity: 500, Version: fmt.Sprintf("v%d", ci+1),
				Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(ci), byte(i + 1)}), 9000), Drain: "http://10.0.0.1:9001",
			}
			v.Seen.Fleet.Instances = append(v.Seen.Fleet.Instances, in)
			v.State.Members[in.ID] = rollout.Member{ID: in.ID, Colour: c, Addr: in.Addr, Drain: in.Drain, Counted: true}
			st := drain.Status{State: drain.Serving, Returned: new(uint64)}
			if c == discovery.Blue {
				st.Active, st.Accepted = 100, 120
			}
			v.Seen.Instances[in.ID] = rollout.Sighting{At: then, Status: st}
		}
	}
	v.Seen.Proxies = []rollout.Proxy{{Node: "edge-1", Connected: true, Confirmed: true}, {Node: "edge-2", Connected: true, Confirmed: true}}
	return v
}

// draining is the same with a rollout that has moved part percent of it.
func draining(name discovery.Service, n, part int) rollout.View {
	v := steady(name, n)
	v.State.Epoch = 1
	v.State.Rollout = &rollout.Rollout{
		ID: string(name) + "-1", From: discovery.Blue, To: discovery.Green, Phase: rollout.Draining, Started: then, Since: then, Settled: then,
		Policy: rollout.DefaultPolicy(), Step: uint64(part), StepAt: next, Total: 100 * n, Events: []rollout.Event{{At: then, Text: "promote green"}},
	}
	v.State.Rollout.Policy.Funnel = rollout.Funnel{Close: 10, Every: rollout.Duration(3 * time.Second)}
	for id, m := range v.State.Members {
		s := v.Seen.Instances[id]
		if m.Colour == discovery.Blue {
			s.Status = drain.Status{State: drain.Draining, Active: 100 - part, Accepted: 120, Evicted: uint64(part), Returned: new(uint64)}
			m.Ceiling = new(100 - part)
		} else {
			s.Status.Active, s.Status.Accepted, s.Status.Returned, s.PerSecond = part, uint64(part), new(uint64(part-1)), 1.25
		}
		v.State.Members[id], v.Seen.Instances[id] = m, s
	}
	v.Wish.Weights = map[discovery.Colour]rollout.Share{discovery.Green: rollout.Whole}
	v.Reason = rollout.Reason{Code: rollout.IsDraining, Text: "10 connections go every 3s"}
	return v
}

// finished is the same after the rollout.
func finished(name discovery.Service, n int, outcome rollout.Outcome) rollout.View {
	v := steady(name, n)
	to := discovery.Green
	if outcome == rollout.Aborted {
		to = discovery.Blue
	}
	v.State.Live = to
	v.Wish.Weights = map[discovery.Colour]rollout.Share{to: rollout.Whole}
	v.State.History = []rollout.Record{{
		ID: string(name) + "-1", From: to.Other(), To: to, Outcome: outcome, Started: then, Ended: then.Add(95 * time.Second), Evicted: 300,
		Returned: new(uint64(299)), NeverBack: new(uint64(1)), Events: []rollout.Event{{At: then, Text: "promote green"}, {At: then.Add(95 * time.Second), Text: "done"}},
	}}
	v.Reason.Text = fmt.Sprintf("new connections go to %s", to)
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
	v.Seen.Loads = map[rollout.Place]rollout.Load{
		{Colour: discovery.Blue, Addr: m.Addr}:                           {Held: 60, At: then, Silent: []string{"edge-2"}},
		{Colour: discovery.Green, Addr: v.State.Members["chat-g1"].Addr}: {Held: 25, At: then, Accepted: 51, Refused: 3, PerSecond: 1.5},
	}
	v.Seen.Witnesses = map[discovery.Colour]rollout.Witness{
		discovery.Blue: {Active: 120, At: then, Missing: []string{"edge-2"}}, discovery.Green: {Missing: []string{"edge-2"}},
	}
	v.Differences = map[discovery.InstanceID]rollout.Difference{"chat-g1": {Said: 40, Reported: 25, Since: then}}
	return v
}

func worlds(name string) map[discovery.Service]rollout.View {
	all := map[discovery.Service]rollout.View{}
	for _, v := range map[string][]rollout.View{
		"steady":   {steady("chat", 2)},
		"draining": {draining("chat", 2, 40)},
		"troubled": {troubled()},
		"done":     {finished("chat", 2, rollout.Done)},
		"aborted":  {finished("chat", 2, rollout.Aborted)},
		"two":      {steady("chat", 1), draining("mail", 1, 40)},
	}[name] {
		all[v.State.Service] = v
	}
	return all
}

func edges() []api.Proxy {
	return []api.Proxy{
		{Node: "edge-1", Connected: true, Since: then, Address: "10.1.0.1:40000", UserAgent: "envoy 1.39.3", Holds: []api.Holding{{Type: "cluster", Resources: 2}, {Type: "route", Resources: 1}}},
		{Node: "edge-2", Since: then, Address: "10.1.0.2:40000", NackCount: 3, Nacks: []api.Nack{{Type: "route", Names: []string{"chat"}, Message: "sum of weights is 0", At: then}},
			Withheld: []api.Withheld{{Ref: "listener/web", Why: "it would be removed"}},
			Reports:  api.Reports{Loads: new(then), Trouble: "load report of chat-blue: it names no endpoints", Refused: 7, Ignored: []string{"other"}}},
	}
}
