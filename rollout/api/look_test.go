package api

import (
	"encoding/json"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func after(d time.Duration) time.Time { return noon.Add(d) }

// view is a service in the middle of draining: b1 and b2 hold 60 and 40 of 200,
// their orders say 55 and 40; g1 has taken 100, 90 of them returned.
func view() rollout.View {
	stored := state.New("chat", discovery.Blue)
	stored.Epoch = 1
	seen := observed.Seen{Instances: map[discovery.InstanceID]observed.Sighting{}, Proxies: []observed.Proxy{
		{Node: "edge-1", Routes: true, Connected: true, Confirmed: true}, {Node: "edge-2", Routes: true, Connected: true, Nack: "bad weight"}, {Node: "edge-3", Routes: true}, {Node: "grpc-1", Connected: true, Nack: "it is no Envoy"}}}
	add := func(id discovery.InstanceID, c discovery.Colour, addr string, ceiling *int, st contract.Status) {
		in := discovery.Instance{ID: id, Colour: c, Addr: netip.MustParseAddrPort(addr), Health: discovery.Passing, Drain: "http://" + addr, Capacity: 500, Version: "v1"}
		seen.Fleet.Instances = append(seen.Fleet.Instances, in)
		stored.Members[id] = state.Member{Identity: state.Identity{ID: id, Colour: c, Addr: in.Addr, Drain: in.Drain}, Quota: state.Quota{Ceiling: ceiling}, Counts: state.Counts{Counted: true, Totals: observed.Totals{Evicted: 1000, Returned: 7, Ticketed: 7}}}
		seen.Instances[id] = observed.Sighting{At: noon, Status: st, PerSecond: 1.5}
	}
	add("b1", discovery.Blue, "10.0.0.1:80", new(55), contract.Status{State: contract.Draining, Active: 60, Evicted: 1040, Returned: new(uint64(7))})
	add("b2", discovery.Blue, "10.0.0.2:80", new(40), contract.Status{State: contract.Draining, Active: 40, Evicted: 1060, Returned: new(uint64(7))})
	add("g1", discovery.Green, "10.0.0.3:80", nil, contract.Status{State: contract.Serving, Active: 100, Accepted: 100, Evicted: 1000, Returned: new(uint64(97)), Ticketed: new(uint64(97))})
	stored.Rollout = &state.Rollout{
		ID: "chat-1", From: discovery.Blue, To: discovery.Green, Phase: state.Draining, Started: after(-time.Minute), Since: after(-50 * time.Second),
		Settled: after(-49 * time.Second), Policy: policy.Default(),
		Steps: state.Steps{Step: 10, StepAt: after(2 * time.Second)}, Toll: state.Toll{Total: 200},
	}
	stored.Rollout.Policy.Funnel = units.Funnel{Close: 10, Every: units.Duration(3 * time.Second)}
	return rollout.View{
		State: stored, Seen: seen,
		Wish:   desired.Wish{Weights: map[discovery.Colour]units.Share{discovery.Green: units.Whole, discovery.Blue: 0}},
		Reason: rollout.Reason{Code: rollout.IsDraining, Text: "draining"},
		Policy: policy.Default(),
	}
}

func TestLookDraining(t *testing.T) {
	s := Look(view(), noon)
	r := s.Rollout
	if s.Phase != state.Draining || r.Evicted != 100 || *r.Returned != 90 || *r.Outstanding != 10 || *r.Held != 100 || *r.NeverBack != 0 || !r.Exact {
		t.Errorf("phase %s, evicted %d, returned %d, outstanding %d, held %d, never back %d", s.Phase, r.Evicted, *r.Returned, *r.Outstanding, *r.Held, *r.NeverBack)
	}
	if !r.NextStepAt.Equal(after(2 * time.Second)) {
		t.Errorf("next step at %s", r.NextStepAt)
	}
	// 95 are left when the running step is over: 10 more steps of 3 s.
	if want := after(32 * time.Second); !r.ETA.Equal(want) {
		t.Errorf("eta %s, want %s", r.ETA, want)
	}
	blue, green := s.Colours[0], s.Colours[1]
	if blue.Colour != discovery.Blue || *blue.Active != 100 || blue.Instances != 2 || blue.Healthy != 2 || *blue.NewPerSecond != 3 || blue.Weight != 0 {
		t.Errorf("blue is %+v", blue)
	}
	if *green.Active != 100 || green.Weight != units.Whole {
		t.Errorf("green is %+v", green)
	}
	if s.Proxies.Connected != 2 || s.Proxies.Confirmed != 1 || len(s.Proxies.Nacks) != 1 || s.Proxies.Nacks[0].Node != "edge-2" {
		t.Errorf("proxies are %+v", s.Proxies)
	}
	var ids []discovery.InstanceID
	for _, i := range s.Instances {
		ids = append(ids, i.ID)
	}
	if b1 := s.Instances[0]; !slices.Equal(ids, []discovery.InstanceID{"b1", "b2", "g1"}) || *b1.Held != 60 || *b1.Ceiling != 55 || *b1.Evicted != 1040 || b1.EvictedByRollout != 40 || b1.Capacity != 500 {
		t.Errorf("instances %v, first %+v", ids, b1)
	}
}

// One process that is registered twice counts once, and two registrations of which one
// must be wrong are named.
func TestLookTwins(t *testing.T) {
	v := view()
	b1, b0 := v.State.Members["b1"], v.State.Members["b1"]
	b0.ID, b0.Counted, b0.Counts = "b0", false, state.Counts{}
	v.State.Members["b0"] = b0
	listed := slices.Clone(v.Seen.Fleet.Instances)
	again := listed[slices.IndexFunc(listed, func(in discovery.Instance) bool { return in.ID == "b1" })]
	again.ID = "b0"
	v.Seen.Fleet.Instances = append([]discovery.Instance{again}, listed...)
	v.Seen.Fleet.Twins = discovery.FindTwins(v.Seen.Fleet.Instances)
	v.Seen.Instances["b0"] = v.Seen.Instances["b1"]
	s := Look(v, noon)
	if s.Colours[0].Instances != 2 || *s.Colours[0].Active != 100 || s.Instances[0].CountedWith != "b1" || s.Instances[0].Held != nil {
		t.Errorf("blue is %+v, b0 is %+v", s.Colours[0], s.Instances[0])
	}
	want := discovery.Note{ID: "b0", Text: "b1 has the address " + b1.Addr.String() + ", too; both count once"}
	if !slices.Equal(s.Notes, []discovery.Note{want}) {
		t.Errorf("notes %v, want %v", s.Notes, want)
	}
}

func TestLookETA(t *testing.T) {
	change := func(do func(*rollout.View)) rollout.View { v := view(); do(&v); return v }
	for name, c := range map[string]struct {
		view rollout.View
		want *time.Time
	}{
		"paused":        {change(func(v *rollout.View) { v.State.Rollout.Paused = true }), nil},
		"waiting":       {change(func(v *rollout.View) { v.Reason.Code = rollout.TargetSick }), nil},
		"unknown count": {change(func(v *rollout.View) { delete(v.Seen.Instances, "b1") }), nil},
		"in grace": {change(func(v *rollout.View) {
			v.State.Rollout.Step, v.State.Rollout.StepAt = 0, time.Time{}
			v.State.Rollout.Policy.Grace = units.Duration(time.Minute)
			v.Reason.Code = rollout.InGrace
		}), new(after(11*time.Second + 30*time.Second))},
		"canary": {change(func(v *rollout.View) {
			r := v.State.Rollout
			r.Phase, r.Settled, r.StepAt, r.Policy.Soak = state.Shifting, after(-10*time.Second), time.Time{}, units.Duration(30*time.Second)
			r.Policy.Grace = units.Duration(5 * time.Second)
		}), new(after(25*time.Second + 30*time.Second))},
		"confirming": {change(func(v *rollout.View) { v.State.Rollout.Phase = state.Confirming }), new(after(30 * time.Second))},
		"soaking":    {change(func(v *rollout.View) { v.State.Rollout.Phase = state.Soaking }), new(after(10 * time.Second))},
		"last step out": {change(func(v *rollout.View) {
			for _, id := range []discovery.InstanceID{"b1", "b2"} {
				m := v.State.Members[id]
				m.Ceiling = new(0)
				v.State.Members[id] = m
			}
		}), new(after(2 * time.Second))},
	} {
		got := Look(c.view, noon).Rollout.ETA
		if (got == nil) != (c.want == nil) || got != nil && !got.Equal(*c.want) {
			t.Errorf("%s: eta %v, want %v", name, got, c.want)
		}
	}
}

func TestLookUnknown(t *testing.T) {
	v := view()
	g1 := v.Seen.Instances["g1"]
	g1.Status.Returned, g1.Status.Ticketed = nil, nil
	v.Seen.Instances["g1"] = g1
	if r := Look(v, noon).Rollout; r.Returned != nil || r.Outstanding != nil || r.NeverBack != nil || r.Evicted != 100 {
		t.Errorf("green cannot tell returning clients, but: %v returned, %v outstanding", r.Returned, r.Outstanding)
	}
	delete(v.Seen.Instances, "g1")
	s := Look(v, noon)
	if s.Colours[1].Active != nil || s.Colours[1].NewPerSecond != nil || s.Instances[2].Held != nil || s.Instances[2].Evicted != nil {
		t.Errorf("nobody said what green holds, but: %+v, %+v", s.Colours[1], s.Instances[2])
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back Status
	if err := json.Unmarshal(text, &back); err != nil || back.Rollout.ID != "chat-1" || back.Instances[2].Held != nil {
		t.Errorf("reading back: %v, %+v", err, back.Rollout)
	}
}

// Who is no longer waited for is no longer on the way, and everybody is counted
// once.
func TestLookNeverBack(t *testing.T) {
	v := view()
	v.State.Rollout.NeverBack = 4
	if r := Look(v, noon).Rollout; *r.NeverBack != 4 || *r.Outstanding != 6 || r.Evicted != *r.Returned+*r.Outstanding+*r.NeverBack {
		t.Errorf("never back %d, outstanding %d; want 4 and 6", *r.NeverBack, *r.Outstanding)
	}
	v.State.Rollout.Lost = 3 // who have no tickets
	if r := Look(v, noon).Rollout; r.NeverBack != nil || r.Exact || *r.Outstanding != 9 || r.Lost != 3 {
		t.Errorf("never back %v, outstanding %d, lost %d; want not known, 9 and 3", r.NeverBack, *r.Outstanding, r.Lost)
	}
}

// A dead process holds nothing; one that merely does not answer holds what it said.
func TestLookDeadInstance(t *testing.T) {
	v := view()
	b1 := v.Seen.Instances["b1"]
	b1.Refused, b1.Err = true, "connection refused"
	v.Seen.Instances["b1"] = b1
	if held := Look(v, noon).Instances[0].Held; *held != 60 {
		t.Errorf("a healthy instance whose endpoint refuses holds %d, want what it said: 60", *held)
	}
	v.Seen.Fleet.Instances[0].Health = discovery.Critical
	if s := Look(v, noon); *s.Instances[0].Held != 0 || *s.Colours[0].Active != 40 || s.Colours[0].Healthy != 1 {
		t.Errorf("a dead instance holds %d, blue %+v", *s.Instances[0].Held, s.Colours[0])
	}
}

func TestLookSteadyAndAborting(t *testing.T) {
	v := view()
	v.State.Rollout.Aborting = true
	v.State.Rollout.From, v.State.Rollout.To = discovery.Green, discovery.Blue
	if s := Look(v, noon); s.Phase != Aborting || s.Rollout.Phase != state.Draining {
		t.Errorf("aborting shows as %s (%s)", s.Phase, s.Rollout.Phase)
	}
	v.State.Rollout = nil
	v.State.History = []state.Record{{ID: "chat-1", Outcome: state.Done, Events: []state.Event{{Text: "x"}}}}
	s := Look(v, noon)
	if s.Phase != state.Steady || s.Rollout != nil || s.Last.ID != "chat-1" || s.Last.Events != nil || v.State.History[0].Events == nil {
		t.Errorf("steady shows as %s, last %+v", s.Phase, s.Last)
	}
}

func TestLookReported(t *testing.T) {
	v := view()
	v.State.Members["b3"] = state.Member{Identity: state.Identity{ID: "b3", Colour: discovery.Blue, Addr: netip.MustParseAddrPort("10.0.0.9:80")}, Departed: noon}
	v.Seen.Loads = map[observed.Place]observed.Load{
		{Colour: discovery.Blue, Addr: netip.MustParseAddrPort("10.0.0.1:80")}: {Held: 45, Admissions: observed.Admissions{Accepted: 9, Refused: 2}, PerSecond: 2, At: noon},
		{Colour: discovery.Blue, Addr: netip.MustParseAddrPort("10.0.0.9:80")}: {Held: 7, PerSecond: 3, At: noon, Silent: []string{"edge-2"}},
	}
	v.Seen.Witnesses = map[discovery.Colour]observed.Witness{discovery.Blue: {Active: 92, At: noon, Missing: []string{"edge-2"}}, discovery.Green: {Missing: []string{"edge-2"}}}
	v.Differences = map[discovery.InstanceID]rollout.Difference{"b1": {Said: 60, Reported: 45, Since: noon}}
	s := Look(v, noon)
	b1, b2, b3 := s.Instances[0], s.Instances[1], s.Instances[2]
	if *b1.Held != 60 || b1.Reported.Held != 45 || b1.Reported.Refused != 2 || *b1.Differs != (Difference{60, 45, noon}) {
		t.Errorf("b1 %+v %+v %+v", b1, b1.Reported, b1.Differs)
	}
	if b2.Reported != nil || b2.Differs != nil {
		t.Errorf("b2 was never reported: %+v", b2)
	}
	if b3.Held == nil || *b3.Held != 7 || !slices.Equal(b3.Reported.Silent, []string{"edge-2"}) {
		t.Errorf("what has no drain endpoint holds what the proxies report: %+v", b3)
	}
	blue, green := s.Colours[0], s.Colours[1]
	if *blue.Active != 107 || *blue.Reported != 92 || *blue.NewPerSecond != 6 || green.Reported != nil || len(green.Unreported) != 1 {
		t.Errorf("blue %+v, green %+v", blue, green)
	}
}
