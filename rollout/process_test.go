package rollout_test

import (
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/sim"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// A process that says no name is another one when a total has fallen; one that says a
// name, when that is another.
func TestAnotherProcess(t *testing.T) {
	first := contract.Status{State: contract.Draining, Active: 40, Accepted: 100, Evicted: 60}
	named := first
	named.Boot = "a"
	for name, test := range map[string]struct {
		before, now contract.Status
		another     bool
	}{
		"no name, more":        {first, contract.Status{Active: 39, Accepted: 101, Evicted: 61}, false},
		"no name, fewer":       {first, contract.Status{Active: 1, Accepted: 1}, true},
		"no name, none closed": {first, contract.Status{Active: 120, Accepted: 120}, true},
		"the same name":        {named, contract.Status{Boot: "a", Active: 1, Accepted: 101, Evicted: 70}, false},
		"another name":         {named, contract.Status{Boot: "b", Active: 41, Accepted: 141, Evicted: 100}, true},
		"a name at last":       {first, contract.Status{Boot: "b", Active: 41, Accepted: 141, Evicted: 100}, true},
	} {
		test.before.State, test.now.State = contract.Draining, contract.Serving
		sight := observed.Sighting{}.After(test.before, nil, sim.Epoch).After(test.now, nil, sim.Epoch.Add(time.Second))
		if another := len(sight.Former) > 0; another != test.another || sight.Err != "" {
			t.Errorf("%s: another process %t, want %t; error %q", name, another, test.another, sight.Err)
		}
	}
}

// A state that an older rolloutd has written does not know the process that it counts:
// it goes on with the one that there is.
func TestAStateWithoutProcessesGoesOn(t *testing.T) {
	w := newWorld(t, small(2, 2, 40, 1))
	w.Pass(3 * time.Second)
	w.must(rollout.Promote{Service: "chat", Target: discovery.Green})
	w.until(time.Minute, func() bool { r := w.State().Rollout; return r != nil && r.Step == 3 })
	w.Pass(2 * time.Second)
	before := rollout.Count(w.State(), w.Seen(), w.Now())
	old := w.State().Clone()
	for key, m := range old.Members {
		m.Process = state.Process{}
		old.Members[key] = m
	}
	if after := rollout.Count(old, w.Seen(), w.Now()); after != before || before.Evicted == 0 {
		t.Errorf("it counts %+v, and %+v before", after, before)
	}
	if next := rollout.Step(old, w.Seen(), w.Now()).Next; next.Rollout.Lost > 0 || len(next.Rollout.Events) != len(old.Rollout.Events) {
		t.Errorf("it takes its processes for others: %+v", next.Rollout)
	}
}
