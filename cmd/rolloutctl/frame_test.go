package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// scenes are what a terminal has to show.
func scenes() map[string]api.World {
	all := map[string]api.World{}
	for name, views := range map[string][]rollout.View{
		"steady":   {steady("chat", 2)},
		"draining": {draining("chat", 3, 40)},
		"many":     {draining("chat", 40, 73)},
		"troubled": {troubled()},
		"done":     {finished("chat", 2, state.Done)},
		"services": {steady("chat", 1), draining("mail", 1, 40)},
		"looped":   {looped(next.Sub(then) + 30*time.Second)},
		"in-place": {inPlace()},
		"empty":    {},
	} {
		byName := map[discovery.Service]rollout.View{}
		for _, v := range views {
			byName[v.State.Service] = v
		}
		all[name] = api.LookAll(byName, next.Add(-2e9))
	}
	return all
}

func render(rows []row) string {
	var b strings.Builder
	for _, r := range rows {
		b.WriteString(r.text + "\n")
	}
	return b.String()
}

func TestFrames(t *testing.T) {
	for name, w := range scenes() {
		for _, size := range [][2]int{{80, 24}, {40, 12}} {
			path := fmt.Sprintf("testdata/frames/%s-%dx%d.txt", name, size[0], size[1])
			got := render(frame(w, "", size[0], size[1]))
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s\n%s\nwant\n%s", path, got, want)
			}
		}
	}
}

// A frame fits any terminal, with a notice or without, and the notice is there.
func TestFramesFit(t *testing.T) {
	for name, w := range scenes() {
		for wide := 1; wide <= 100; wide += 3 {
			for high := 1; high <= 30; high += 2 {
				for _, notice := range []string{"", "rolloutd is away 漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字"} {
					rows := frame(w, notice, wide, high)
					if len(rows) > high {
						t.Fatalf("%s at %d×%d has %d rows", name, wide, high, len(rows))
					}
					for _, r := range rows {
						if cellsOf(r.text) > wide {
							t.Fatalf("%s at %d×%d: %q is %d wide", name, wide, high, r.text, cellsOf(r.text))
						}
					}
					if notice != "" && wide > 8 && !strings.HasPrefix(rows[len(rows)-1].text, "rollout") {
						t.Fatalf("%s at %d×%d lost its notice", name, wide, high)
					}
				}
			}
		}
	}
}
