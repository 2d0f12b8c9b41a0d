package rollout

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// Who an instance is does not depend on its neighbours, and a state that was stored before
// nodes were remembered goes on with the members that it has.
func TestNames(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	s := state.New("chat", discovery.Blue)
	s.Members["chat"] = state.Member{
		Identity: state.Identity{ID: "chat", Colour: discovery.Blue, Addr: netip.MustParseAddrPort("10.0.0.1:80")},
		Counts:   state.Counts{Counted: true, Lost: 7},
	}
	for _, c := range []struct {
		nodes, want string
	}{
		{"1", "chat/n1"},
		{"1 2", "chat/n1 chat@n2/n2"},
		{"1 2 3", "chat/n1 chat@n2/n2 chat@n3/n3"},
		{"2", "chat/n1 gone, chat@n2/n2 chat@n3/n3 gone,"},
		{"2 1", "chat/n1 chat@n2/n2 chat@n3/n3 gone,"},
	} {
		var all []discovery.Registration
		for node := range strings.FieldsSeq(c.nodes) {
			all = append(all, discovery.Registration{ID: "chat", Node: "n" + node, Colour: discovery.Blue, Address: "10.0.0." + node, Port: 80, Health: discovery.Passing})
		}
		seen := observed.Seen{Fleet: discovery.NewFleet(all)}
		for range 5 {
			s = Step(s, seen, at).Next
		}
		var got []string
		for key, m := range s.Members {
			name := fmt.Sprintf("%s/%s", key, m.Node)
			if !m.Departed.IsZero() {
				name += " gone,"
			}
			got = append(got, name)
		}
		slices.Sort(got)
		if strings.Join(got, " ") != c.want {
			t.Errorf("with %s: %v, want %s", c.nodes, got, c.want)
		}
		if m := s.Members["chat"]; !m.Counted || m.Lost != 7 {
			t.Errorf("with %s: chat is another member: %+v", c.nodes, m)
		}
		if err := s.Check(); err != nil {
			t.Error(err)
		}
	}
}
