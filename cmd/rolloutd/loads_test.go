package main

import (
	"slices"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/state"
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
		want   observed.Witness
		none   bool
	}{
		{name: "no proxy at all proves nothing", none: true},
		{name: "a proxy that never counted", nodes: []string{"a"}, want: observed.Witness{Missing: []string{"a"}}},
		{name: "all say nothing is held", nodes: []string{"a", "b"},
			counts: []reports.Count{{Node: "a", At: later}, {Node: "b", At: at}}, want: observed.Witness{At: at}},
		{name: "what waits counts; what is kept open for the next request does not", nodes: []string{"a"},
			counts: []reports.Count{{Node: "a", Requests: 3, Pending: 2, Connections: 9, At: at, ConnectP99: time.Second}},
			want:   observed.Witness{Active: 5, At: at, ConnectP99: time.Second}},
		{name: "every open TCP connection counts", nodes: []string{"a"}, tcp: true,
			counts: []reports.Count{{Node: "a", Requests: 3, Connections: 9, At: at}}, want: observed.Witness{Active: 9, At: at}},
		{name: "a silent one counts as before and is missing", nodes: []string{"a", "b"},
			counts: []reports.Count{{Node: "a", Requests: 1, At: later}, {Node: "b", Requests: 2, At: at, Silent: true}},
			want:   observed.Witness{Active: 3, At: later, Missing: []string{"b"}}},
		{name: "one that has not sent everything yet", nodes: []string{"a"},
			counts: []reports.Count{{Node: "a"}}, want: observed.Witness{Missing: []string{"a"}}},
		{name: "one whose configuration comes from another replica", nodes: []string{"a"},
			counts: []reports.Count{{Node: "a", At: at}, {Node: "z", Requests: 4, At: at, Silent: true}},
			want:   observed.Witness{Active: 4, At: at, Missing: []string{"z"}}},
		{name: "after a hot restart the new process counts for the old one", nodes: []string{"a", "a (2)"},
			counts: []reports.Count{{Node: "a", Requests: 40, At: at, Silent: true}, {Node: "a (2)", Requests: 41, At: later, Covers: "a"}},
			want:   observed.Witness{Active: 41, At: later}},
		{name: "but not where it does not know", nodes: []string{"a", "a (2)"},
			counts: []reports.Count{{Node: "a", Requests: 40, At: at, Silent: true}, {Node: "a (2)", At: later, Silent: true, Covers: "a"}},
			want:   observed.Witness{Active: 40, Missing: []string{"a", "a (2)"}}},
	} {
		got, ok := witness(c.nodes, c.counts, c.tcp)
		if ok == c.none || got.Active != c.want.Active || !got.At.Equal(c.want.At) || got.ConnectP99 != c.want.ConnectP99 || !slices.Equal(got.Missing, c.want.Missing) {
			t.Errorf("%s: %+v %v, want %+v", c.name, got, ok, c.want)
		}
	}
}

// What a lost proxy held counts until its service does not wait for it any more.
func TestWhatALostProxyHeldCountsUntilItIsGone(t *testing.T) {
	l := newLoads(nil)
	stored := state.New("chat", "blue")
	gone := func(node string, waits []string, away map[string]bool) bool {
		stored.Proxies = waits
		return l.left(stored, "chat", away)(node)
	}
	away := map[string]bool{"b": true}
	for _, c := range []struct {
		node  string
		want  bool
		waits []string
	}{
		{"a", false, []string{"a", "b"}}, {"b", false, []string{"a", "b"}}, {"b", true, []string{"a"}}, {"a", false, nil}, {"c", false, nil},
	} {
		if got := gone(c.node, c.waits, away); got != c.want {
			t.Errorf("%s is gone where %v are waited for: %v", c.node, c.waits, got)
		}
	}
	if gone("b", nil, nil) || gone("b", nil, away) {
		t.Error("one that came back, and was never waited for since, is taken for gone")
	}
}
