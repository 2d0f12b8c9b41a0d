package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// What a pipeline's page shows of a rollout stands behind what stood there before.
func TestSummary(t *testing.T) {
	for name, set := range map[string]map[string]string{
		"done":       {"then": "steady draining done"},
		"aborted":    {"then": "steady draining aborted"},
		"superseded": {"then": "steady draining superseded"},
	} {
		set["world"], set["answer"] = "steady", "chat-1 chat: off it goes"
		file := filepath.Join(t.TempDir(), "summary.md")
		if err := os.WriteFile(file, []byte("before\n\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		out := play(t, set, []string{"promote", "green", "--wait", "--summary", file})
		golden := filepath.Join("testdata", "summary-"+name+".md")
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("%v after\n%s", err, out)
		}
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(golden); err != nil || string(want) != string(got) {
			t.Errorf("%s: %s\nwant\n%s (%v)", name, got, want, err)
		}
	}
}

// A wait that ends before its rollout says so, exits 1 and leaves it going.
func TestWaitsNoLonger(t *testing.T) {
	file := filepath.Join(t.TempDir(), "summary.md")
	set := map[string]string{"world": "draining", "answer": "chat-1 chat: off it goes"}
	out := string(play(t, set, []string{"promote", "green", "--wait", "--timeout", "50ms", "--summary", file}))
	if !strings.HasPrefix(out, "exit 1\n") || !strings.Contains(out, "rollout chat-1 has not ended within 50ms and goes on") || strings.Contains(out, "Abort") {
		t.Errorf("says\n%s", out)
	}
	if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), "has not ended within 50ms") || !strings.Contains(string(text), "10 connections go every 3s") {
		t.Errorf("sums up as %q, %v", text, err)
	}
}

// A command that waits in a pipeline says where it is when that changes, and
// every ten seconds how far it is.
func TestWaitsQuietly(t *testing.T) {
	var out bytes.Buffer
	c := &cli{out: &out, err: &out}
	v := c.newViewer(true)
	for second := range 25 {
		moved := draining("chat", 2, 40+second)
		moved.State.Rollout.Pace = state.Pace{Limit: 5, Why: fmt.Sprintf("%d of 40 new connections were refused", second)}
		if second > 22 {
			moved.Reason.Code = rollout.TargetSick
		}
		world := api.LookAll(map[discovery.Service]rollout.View{"chat": moved}, then.Add(time.Duration(second)*time.Second))
		if err := v.show(world); err != nil {
			t.Fatal(err)
		}
	}
	var at []string
	for line := range strings.Lines(out.String()) {
		at = append(at, line[len("2026-01-02T12:00:"):len("2026-01-02T12:00:00")])
	}
	if want := []string{"00", "10", "20", "23"}; !slices.Equal(at, want) {
		t.Errorf("speaks at the seconds %v, want %v\n%s", at, want, &out)
	}
}
