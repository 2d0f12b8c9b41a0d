package main

import (
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

func look(v rollout.View) api.World {
	return api.LookAll(map[discovery.Service]rollout.View{"chat": v}, next.Add(-2*time.Second))
}

func TestLine(t *testing.T) {
	for _, c := range []struct {
		view rollout.View
		want string
	}{
		{looped(next.Sub(then) + 30*time.Second), "chat draining, blue to green, held 160 of 400, evicted 240, outstanding about 30 of 50, lost 20, batch 3 of 4, pace 5 of 10/3s" +
			": waiting: gate errors is closed: 0.04 is not below 0.01; at most 5 every 3s: 3 of 40 new connections were refused" +
			"; the deadline of 12:00:30 UTC is not to be kept at this pace; it would take 16 connections every 3s"},
		{inPlace(), "chat draining, blue to green, held 120 of 200, evicted 40, outstanding 0, batch 1 of 2, pace 10/3s" +
			": waiting: the hook did not end chat-b1 (POST 127.0.0.1 answers 500); it is called again at 12:00:30 UTC" +
			"; green is full: new connections go to the blue instances whose turn has not come"},
	} {
		w := look(c.view)
		if got := line(w.Services[0], w.At); got != c.want {
			t.Errorf("%s\nwant\n%s", got, c.want)
		}
	}
}

// What an operator acts upon is printed at once, also when the line before is
// younger than a second.
func TestLinesTellAtOnce(t *testing.T) {
	first := draining("chat", 4, 40)
	first.State.Rollout.Policy.Stagger.Instances.Number = 1
	first.State.Rollout.Policy.Stagger.InPlace = true
	for name, change := range map[string]func(r *state.Rollout){
		"batch":    func(r *state.Rollout) { r.Batch++ },
		"spill":    func(r *state.Rollout) { r.Spill = true },
		"pace":     func(r *state.Rollout) { r.Pace = state.Pace{Limit: 5, Why: "slow"} },
		"deadline": func(r *state.Rollout) { r.Policy.Deadline = units.Duration(time.Minute) },
	} {
		var out strings.Builder
		l := &lines{out: &out, err: &out}
		second := first
		second.State = second.State.Clone()
		change(second.State.Rollout)
		for _, v := range []rollout.View{first, second} {
			if err := l.show(look(v)); err != nil {
				t.Fatal(err)
			}
		}
		if n := strings.Count(out.String(), "\n"); n != 2 {
			t.Errorf("%s: %d lines, want 2\n%s", name, n, out.String())
		}
	}
}

func TestPaced(t *testing.T) {
	r := api.Rollout{Policy: policy.Policy{Funnel: units.Funnel{Close: 10, Every: units.Duration(3 * time.Second)}}}
	for n, want := range map[int]string{0: "10/3s", 4: "4 of 10/3s", 10: "10/3s", 34: "34/3s"} {
		r.Pace.Close = n
		if got := paced(r); got != want {
			t.Errorf("a step may close %d: %q, want %q", n, got, want)
		}
	}
}
