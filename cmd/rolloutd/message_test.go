package main

import (
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// What operators say about their commands stands in the history, and what they asked
// for beside the policy can be asked for again.
func TestMessages(t *testing.T) {
	p := newProgram(t, 9)
	p.write("instances.yaml", p.instances("chat"))
	p.configure(p.chat(1))
	p.launch()
	p.listen("edge-1")
	p.until("the proxy has heard everything", func() bool { return p.status("chat").Proxies.Confirmed == 1 })
	ctx := t.Context()
	for _, bad := range []state.Message{"two\nlines", "\x1b[2J", "\xff", state.Message(strings.Repeat("x", 201))} {
		_, err := p.api.Saying(bad).Promote(ctx, "chat", api.Promotion{Target: "green"})
		if r, refused := err.(*rollout.Refusal); !refused || r.Code != rollout.BadRequest || p.status("chat").Rollout != nil {
			t.Errorf("%q: %v", bad, err)
		}
	}
	answer, err := p.api.Saying("CHG-1, Ann").Promote(ctx, "chat", api.Promotion{Target: "green", Overrides: policy.Overrides{Close: new(3)}})
	if err != nil || answer.Rollout == "" {
		t.Fatal(answer, err)
	}
	for _, do := range []func(*api.Client) (rollout.Answer, error){
		func(c *api.Client) (rollout.Answer, error) { return c.Pause(ctx, "chat") },
		func(c *api.Client) (rollout.Answer, error) { return c.Resume(ctx, "chat") },
		func(c *api.Client) (rollout.Answer, error) {
			return c.SetPace(ctx, "chat", units.Funnel{Close: 2, Every: units.Duration(time.Second)})
		},
		func(c *api.Client) (rollout.Answer, error) { return c.Abort(ctx, "chat") },
	} {
		if _, err := do(p.api.Saying("latency of “search” – Ben")); err != nil {
			t.Fatal(err)
		}
	}
	p.until("aborted", func() bool { return p.status("chat").Rollout == nil })
	past, err := p.api.History(ctx, "chat")
	if err != nil || len(past) != 1 {
		t.Fatalf("%+v, %v", past, err)
	}
	var story strings.Builder
	for _, e := range past[0].Events {
		story.WriteString(e.Text + "\n")
	}
	if strings.Count(story.String(), ", with the message: latency of “search” – Ben\n") != 4 || strings.Count(story.String(), ", with the message: CHG-1, Ann\n") != 1 {
		t.Errorf("tells\n%s", story.String())
	}
	if o := past[0].Overrides; o.Close == nil || *o.Close != 3 || o.Every != nil {
		t.Errorf("remembers %+v of what was asked for", o)
	}
}
