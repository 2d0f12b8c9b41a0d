package api

import (
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/returns"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

const second = units.Duration(time.Second)

// batched is view with one old instance at a time: b2, which holds less, is on
// its way, b1 waits.
func batched() rollout.View {
	v := view()
	v.State.Rollout.Policy.Stagger = policy.Stagger{Instances: units.Portion{Number: 1}, Soak: 30 * second}
	v.State.Rollout.Batch = 1
	b1, b2 := v.State.Members["b1"], v.State.Members["b2"]
	b1.Ceiling, b2.Turn = nil, 1
	v.State.Members["b1"], v.State.Members["b2"] = b1, b2
	return v
}

// at moves a member's count.
func at(v rollout.View, id discovery.InstanceID, active int) {
	s := v.Seen.Instances[id]
	s.Status.Active = active
	v.Seen.Instances[id] = s
}

func TestLookETAOfTheLoop(t *testing.T) {
	change := func(v rollout.View, do func(*rollout.View, *state.Rollout)) rollout.View {
		do(&v, v.State.Rollout)
		return v
	}
	for name, c := range map[string]struct {
		view rollout.View
		want time.Duration // from now; 0: none
	}{
		// 95 rest; 5 of 10 are raised to 6, 7, 8, 9, 10 (40 in all), then 6 steps of 10.
		"slowed": {change(view(), func(_ *rollout.View, r *state.Rollout) { r.Pace = state.Pace{Limit: 5, Why: "slow"} }), 2*time.Second + 11*3*time.Second},
		"window below the cap": {change(view(), func(v *rollout.View, r *state.Rollout) {
			r.Policy.Window = 5
			returned(v, 100)
		}), 2*time.Second + 19*3*time.Second},
		// 100 of 200 went in 49 s, and 10 more than fit in the window are on their way.
		"window binds": {change(view(), func(v *rollout.View, r *state.Rollout) {
			r.Policy.Window = 12
			v.Reason.Code = rollout.WindowFull
		}), 2*time.Second + 95*490*time.Millisecond},
		"hurrying": {change(view(), func(_ *rollout.View, r *state.Rollout) {
			r.Policy.Deadline, r.Policy.Pressure, r.Policy.HurryCap = 71*second, policy.Hurry, 100
		}), 2*time.Second + 3*3*time.Second}, // 9 s are 3 steps for 100: 34 each
		// b2: 4 steps; a soak; b1: 6 steps.
		"batches":           {batched(), 2*time.Second + 10*3*time.Second + 30*time.Second},
		"batches, the last": {change(batched(), func(v *rollout.View, _ *state.Rollout) { at(*v, "b1", 0) }), 2*time.Second + 4*3*time.Second},
		"batches, soaking": {change(batched(), func(v *rollout.View, r *state.Rollout) {
			at(*v, "b2", 0)
			r.BatchAt, v.Reason.Code = after(-10*time.Second), rollout.BatchSoak
		}), 20*time.Second + 6*3*time.Second},
		"batches, going back":  {change(batched(), func(_ *rollout.View, r *state.Rollout) { r.Aborting = true }), 2*time.Second + 10*3*time.Second},
		"no room for the rest": {change(view(), func(v *rollout.View, _ *state.Rollout) { v.Seen.Fleet.Instances[2].Capacity = 150 }), 0},
		"a gate is closed":     {change(view(), func(v *rollout.View, _ *state.Rollout) { v.Reason.Code = rollout.GateClosed }), 0},
		"nobody returns":       {change(view(), func(v *rollout.View, _ *state.Rollout) { v.Reason.Code = rollout.NotReturning }), 0},
	} {
		got := Look(c.view, noon).Rollout.ETA
		switch {
		case got == nil && c.want != 0, got != nil && c.want == 0:
			t.Errorf("%s: eta %v, want %s", name, got, c.want)
		case got != nil && got.Sub(noon).Round(time.Millisecond) != c.want:
			t.Errorf("%s: eta in %s, want %s", name, got.Sub(noon), c.want)
		}
	}
}

// returned has so many of the evicted clients seen again.
func returned(v *rollout.View, n uint64) {
	s := v.Seen.Instances["g1"]
	s.Status.Returned, s.Status.Ticketed = new(7+n), new(7+n)
	v.Seen.Instances["g1"] = s
}

func TestLookBatches(t *testing.T) {
	s := Look(batched(), noon)
	b1, b2, g1 := s.Instances[0], s.Instances[1], s.Instances[2]
	if r := s.Rollout; r.Batch != 1 || r.Batches != 2 || b1.Batch != 2 || b2.Batch != 1 || g1.Batch != 0 || !b1.Old || !b2.Old || g1.Old {
		t.Errorf("batch %d of %d: b1 %+v, b2 %+v, g1 %+v", r.Batch, r.Batches, b1, b2, g1)
	}
	if r := Look(view(), noon).Rollout; r.Batches != 0 {
		t.Errorf("without stagger there are %d batches", r.Batches)
	}
}

// After a promotion was superseded, an older release of the target's colour lets
// its connections go as well.
func TestLookOutgoing(t *testing.T) {
	v := view()
	g0 := state.Member{Identity: state.Identity{ID: "g0", Colour: discovery.Green, Addr: netip.MustParseAddrPort("10.0.0.4:80"), Drain: "http://10.0.0.4:81"}, Standing: state.Standing{Outgoing: true}}
	v.State.Members["g0"] = g0
	v.Seen.Instances["g0"] = observed.Sighting{At: noon, Status: contract.Status{State: contract.Draining, Active: 20}}
	s := Look(v, noon)
	if *s.Rollout.Held != 120 || !s.Instances[2].Old || s.Instances[3].Old {
		t.Errorf("the old side holds %d, want 120; g0 %+v", *s.Rollout.Held, s.Instances[2])
	}
	if want := after(2*time.Second + 12*3*time.Second); !s.Rollout.ETA.Equal(want) {
		t.Errorf("eta %s, want %s", s.Rollout.ETA, want)
	}
}

func TestLookPaceAndRoom(t *testing.T) {
	v := view()
	v.State.Rollout.Pace = state.Pace{Limit: 5, Why: "3 of 40 new connections were refused"}
	v.State.Rollout.Policy.Headroom = units.Whole / 2
	v.State.Rollout.Policy.Deadline = 60 * second
	s := Look(v, noon)
	if p := s.Rollout.Pace; p.Close != 5 || p.Why != v.State.Rollout.Pace.Why {
		t.Errorf("pace %+v", p)
	}
	if s.Rollout.Alarm != "the deadline of 12:00:00 UTC has passed" {
		t.Errorf("alarm %q", s.Rollout.Alarm)
	}
	if blue, green := s.Colours[0].Room, s.Colours[1].Room; blue != nil || green == nil || *green != (rollout.Room{Held: 100, Capacity: 250}) {
		t.Errorf("blue, which drains, has %v; green has %v, want 100 of 250", blue, green)
	}
	v.Seen.Fleet.Instances[2].Capacity = 0
	if s := Look(v, noon); s.Colours[1].Room != nil {
		t.Errorf("green declares no capacity, but has %v", s.Colours[1].Room)
	}
	if p := Look(view(), noon).Rollout.Pace; p != (Pace{Close: 10}) {
		t.Errorf("at the cap the pace is %+v", p)
	}
}

func TestLookGatesAndHooks(t *testing.T) {
	v := view()
	r := v.State.Rollout
	r.Policy.Gates = []policy.Gate{{Name: "errors"}, {Name: "load"}, {Name: "new"}}
	r.Policy.Hook = &policy.Hook{URL: "http://hook"}
	v.Seen.Gates = map[string]observed.Reading{
		"errors": {Open: true, Text: "gate errors is open: 0", At: noon}, "load": {Unanswered: true, Text: "gate load is closed: no answer", At: noon},
		"gone": {Open: true, At: noon},
	}
	for i, id := range []discovery.InstanceID{"h1", "h2", "h3"} {
		v.State.Members[id] = state.Member{Identity: state.Identity{ID: id, Colour: discovery.Blue, Addr: netip.MustParseAddrPort("10.0.1.1:80")}, HookCalls: state.HookCalls{Hooked: 2, HookedAt: after(time.Duration(-i) * time.Second)}}
	}
	v.Seen.Hooks = map[discovery.InstanceID]observed.HookRun{
		"h1": {Rollout: "chat-1", Attempt: 2, Done: true, Err: "exit 1", At: noon},
		"h2": {Rollout: "chat-1", Attempt: 1, Done: true, Err: "exit 9", At: noon}, // the call before
		"h3": {Rollout: "chat-1", Attempt: 2, Done: true, At: noon},
	}
	out := Look(v, noon).Rollout
	if g := out.Gates; len(g) != 3 || !*g[0].Open || *g[1].Open || !g[1].Unanswered || g[2].Open != nil || g[2].At != nil || g[0].Text != "gate errors is open: 0" || !g[1].At.Equal(noon) {
		t.Errorf("gates %+v", g)
	}
	h := out.Hooks
	if len(h) != 3 || h[0].Instance != "h3" || h[1].Instance != "h2" || h[2].Instance != "h1" {
		t.Fatalf("hooks %+v, want h3, h2, h1: oldest first", h)
	}
	if h[0].Ended == nil || h[0].Error != "" || h[1].Ended != nil || h[1].Error != "" || h[2].Error != "exit 1" || h[2].Attempt != 2 || !h[2].Since.Equal(noon) {
		t.Errorf("hooks %+v", h)
	}
}

// Where returns are estimated, so are those on their way; who never comes back is not
// known, and how many are away at least is.
func TestLookEstimated(t *testing.T) {
	v := view()
	g1 := v.Seen.Instances["g1"]
	g1.Status.Returned, g1.Status.Ticketed = nil, nil
	v.Seen.Instances["g1"] = g1
	v.State.Rollout.Accepted = 70
	v.State.Rollout.Returns = new(returns.New(time.Minute).Observe(returns.Observation{Now: noon, AsOf: noon}))
	r := Look(v, noon).Rollout
	if r.Exact || r.Returned == nil || r.Outstanding == nil || *r.Outstanding != 30 || r.NeverBack != nil || r.AtLeast != 30 {
		t.Errorf("exact %v, returned %v, outstanding %v, never back %v, at least %d away", r.Exact, r.Returned, r.Outstanding, r.NeverBack, r.AtLeast)
	}
	if r := Look(v, noon.Add(time.Minute)).Rollout; r.Returned != nil || r.Outstanding != nil || r.AtLeast != 30 {
		t.Errorf("a minute later %v are on their way, at least %d", r.Outstanding, r.AtLeast)
	}
}
