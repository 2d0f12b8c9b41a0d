package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// at20 is the scenarios' pace: 20 every 1 s.
func at20(i int) float64 { return float64(i) / 20 }

// performed is a play of a scenario in which client i is let go at leave(i), by
// instance i/50 of blue, and is back on green 0.3 s later.
func performed(name string, done []float64, watched string, leave func(int) float64) play {
	i := slices.IndexFunc(scenarios, func(sc *scenario) bool { return sc.name == name })
	limit := units.Funnel{Close: 20, Every: units.Duration(time.Second)}
	p := play{
		recording: recording{name: name, clients: 200, funnel: limit, began: at(-0.7)}, scenario: scenarios[i],
		exp: experiment{clients: 200, cap: limit}, dead: map[string]bool{},
	}
	p.home = func(h clients.Hello) bool { return h.Version == p.ends }
	for i := range 200 {
		on := func(r clients.Record, instance, version string) clients.Record {
			r.Hello.Instance, r.Hello.Version = instance, version
			return r
		}
		blue, t := fmt.Sprintf("chat-b%d", i/50+1), leave(i)
		p.records = append(p.records, on(joined(i, -5, "blue"), blue, "v1"), on(left(i, t, "blue", 1012), blue, "v1"), on(joined(i, t+0.3, "green"), "chat-g1", "v2"))
	}
	p.records = sorted(p.records)
	for _, s := range done {
		p.done = append(p.done, at(s))
	}
	for i, code := range strings.Fields(watched) {
		p.watched = append(p.watched, sight{At: at(float64(i)), Rollout: "chat-1", Phase: state.Draining, Code: rollout.Code(code)})
	}
	return p
}

const sick = "unconfirmed settling draining fresh_counts draining target_sick draining soaking"

// stopped is the pace with 8 s of nothing after the fourth second.
func stopped(i int) float64 {
	if i < 80 {
		return at20(i)
	}
	return at20(i) + 8
}

func TestScenarioKeepsItsPromises(t *testing.T) {
	for _, p := range []play{
		performed("sick-green", []float64{3.5, 11.5}, sick, stopped),
		performed("slow-clients", nil, "settling draining window_full draining window_full draining", at20),
		performed("staggered", nil, "settling draining batch_soak draining batch_soak draining batch_soak draining", func(i int) float64 { return at20(i) + 2.1*float64(i/50) }),
	} {
		if err := p.broken(); err != nil {
			t.Errorf("%s: %v", p.scenario.name, err)
		}
	}
}

func TestScenarioBreaksAPromise(t *testing.T) {
	for name, c := range map[string]struct {
		play   play
		change func(*play)
		want   string
	}{
		"cap":       {play: performed("sick-green", []float64{3.5, 11.5}, sick, func(i int) float64 { return stopped(i) * 0.6 }), want: "the cap is 20/1s"},
		"not still": {play: performed("sick-green", []float64{3.5, 11.5}, sick, at20), want: "after the funnel should have stopped"},
		"reasons":   {play: performed("sick-green", []float64{3.5, 11.5}, "settling draining soaking", stopped), want: `watch showed "settling draining"`},
		"twice": {play: performed("sick-green", []float64{3.5, 11.5}, sick, stopped), change: func(p *play) {
			again, back := left(3, 40, "green", 1012), joined(3, 41, "green")
			back.Hello.Version = "v2"
			p.records = append(p.records, again, back)
		}, want: "up to 2 of one"},
		"dropped": {play: performed("sick-green", []float64{3.5, 11.5}, sick, stopped), change: func(p *play) {
			p.records = append(p.records, left(3, 40, "green", 0), p.records[len(p.records)-1])
			p.records[len(p.records)-1].Client = 3
		}, want: "something else than the funnel"},
		"wrong release": {play: performed("sick-green", []float64{3.5, 11.5}, sick, stopped), change: func(p *play) {
			p.records[len(p.records)-1].Hello.Version = "v1"
		}, want: "1 of 200 clients are not on v2"},
		"window": {play: performed("slow-clients", nil, "settling draining window_full draining", at20), change: func(p *play) {
			for i, rec := range p.records {
				if rec.Kind == clients.Joined && rec.Hello.Colour == "green" {
					p.records[i].At = rec.At.Add(5 * time.Second)
				}
			}
			sorted(p.records)
		}, want: "the window is 60"},
		"room": {play: performed("no-room", []float64{60}, "settling draining no_room draining", at20), want: "green holds 121"},
		"both at once": {play: performed("in-place", []float64{1, 2, 3}, "settling draining no_room draining no_room draining no_room draining", func(i int) float64 {
			return at20(i%50*4 + i/50)
		}), want: "lets go again"},
		"no soak": {play: performed("staggered", nil, "settling draining batch_soak draining batch_soak draining batch_soak draining", at20), want: "before the soak of 2s was over"},
		"onto the leaving": {play: performed("supersede", []float64{1, 2}, "settling draining settling draining", at20), change: func(p *play) {
			for i, rec := range p.records { // all but the first to come back after the promotion go to v3
				if rec.Kind == clients.Joined && rec.Hello.Colour == "green" && (rec.Client > 50 || rec.Client < 45) {
					p.records[i].Hello.Version = "v3"
				}
			}
			for c := range 6 {
				again := joined(45+c, 60, "blue")
				again.Hello.Version = "v3"
				p.records = append(p.records, again)
			}
		}, want: "after the second promotion"},
	} {
		p := c.play
		if c.change != nil {
			c.change(&p)
		}
		if err := p.broken(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want one that says %q", name, err, c.want)
		}
	}
}

func TestScenarioReport(t *testing.T) {
	plays := []play{
		performed("sick-green", []float64{3.5, 11.5}, sick, stopped),
		performed("supersede", []float64{1, 2}, "settling draining", at20),
	}
	r := oneByOne(plays, plays[0].funnel)
	var printed bytes.Buffer
	if err := printTable(&printed, r.rows); err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(printed.String(), "\n") {
		if len(line) > 80 {
			t.Errorf("wider than a terminal: %q", line)
		}
	}
	dir := t.TempDir()
	if err := r.writeFiles(dir); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "storm.json"))
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Runs []struct {
			Scenario string
			Clients  int
			Never    int `json:"never_back"`
			Reasons  []string
		}
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	if got := doc.Runs[0]; got.Scenario != "sick-green" || got.Clients != 200 || strings.Join(got.Reasons, " ") != sick {
		t.Errorf("storm.json: %+v", got)
	}
	page, err := os.ReadFile(filepath.Join(dir, "storm.html"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Disturbed rollouts", "chat-g3 killed", "promote blue", "v3, blue"} {
		if !bytes.Contains(page, []byte(want)) {
			t.Errorf("the page lacks %q", want)
		}
	}
}
