package main

import (
	"slices"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/xds/reports"
)

func TestWitness(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	later := at.Add(time.Second)
	for _, c := range []struct {
		name   string
		nodes  []string
		counts []reports.Count
		tcp    bool
		want   rollout.Witness
		none   bool
	}{
		{name: "no proxy at all proves nothing", none: true},
		{name: "a proxy that never counted", nodes: []string{"a"}, want: rollout.Witness{Missing: []string{"a"}}},
		{name: "all say nothing is held", nodes: []string{"a", "b"},
			counts: []reports.Count{{Node: "a", At: later}, {Node: "b", At: at}}, want: rollout.Witness{At: at}},
		{name: "what waits counts; what is kept open for the next request does not", nodes: []string{"a"},
			counts: []reports.Count{{Node: "a", Requests: 3, Pending: 2, Connections: 9, At: at, ConnectP99: time.Second}},
			want:   rollout.Witness{Active: 5, At: at, ConnectP99: time.Second}},
		{name: "every open TCP connection counts", nodes: []string{"a"}, tcp: true,
			counts: []reports.Count{{Node: "a", Requests: 3, Connections: 9, At: at}}, want: rollout.Witness{Active: 9, At: at}},
		{name: "a silent one counts as before and is missing", nodes: []string{"a", "b"},
			counts: []reports.Count{{Node: "a", Requests: 1, At: later}, {Node: "b", Requests: 2, At: at, Silent: true}},
			want:   rollout.Witness{Active: 3, At: later, Missing: []string{"b"}}},
		{name: "one that has not sent everything yet", nodes: []string{"a"},
			counts: []reports.Count{{Node: "a"}}, want: rollout.Witness{Missing: []string{"a"}}},
		{name: "one whose configuration comes from another replica", nodes: []string{"a"},
			counts: []reports.Count{{Node: "a", At: at}, {Node: "z", Requests: 4, At: at, Silent: true}},
			want:   rollout.Witness{Active: 4, At: at, Missing: []string{"z"}}},
	} {
		got, ok := witness(c.nodes, c.counts, c.tcp)
		if ok == c.none || got.Active != c.want.Active || !got.At.Equal(c.want.At) || got.ConnectP99 != c.want.ConnectP99 || !slices.Equal(got.Missing, c.want.Missing) {
			t.Errorf("%s: %+v %v, want %+v", c.name, got, ok, c.want)
		}
	}
}
