package envoy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/desired"
)

// Whatever a Builder was given before, it returns what Build does.
func TestBuilderRemembersNothingFalse(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var b Builder
	w := randomWorld(r)
	for round := range 2000 {
		w = next(r, w)
		want, wantErrs := Build(w.config, w.wishes)
		got, gotErrs := b.Build(w.config, maps.Clone(w.wishes))
		if fmt.Sprint(gotErrs) != fmt.Sprint(wantErrs) || len(got) != len(want) {
			t.Fatalf("round %d: %d resources and %v, want %d and %v", round, len(got), gotErrs, len(want), wantErrs)
		}
		for i := range want {
			g, x := got[i], want[i]
			if g.Ref != x.Ref || g.Owner != x.Owner || fmt.Sprint(g.After) != fmt.Sprint(x.After) || !proto.Equal(g.Message, x.Message) {
				t.Fatalf("round %d: %s is %v\nwant %v", round, x.Ref, g, x)
			}
		}
	}
}

// A change of one service's endpoints makes two new messages and their clusters': all
// others are those that are published already.
func TestBuilderMakesOnlyWhatChanged(t *testing.T) {
	c := edge.Config{Listeners: []edge.Listener{{Name: "web", Address: addr("127.0.0.1:80")}}}
	w := desired.Wishes{}
	for i := range 50 {
		s := edge.Service{Name: discovery.Service(fmt.Sprintf("s%d", i)), Listener: "web", Prefix: fmt.Sprintf("/s%d", i)}
		c.Services = append(c.Services, s)
		w[s.Name] = wish(5000, 5000, nil, nil)
	}
	var b Builder
	before, _ := b.Build(c, w)
	w = maps.Clone(w)
	changed := wish(5000, 5000, nil, nil)
	changed.Endpoints[discovery.Blue] = []desired.Endpoint{{ID: "b1", Addr: addr("10.0.0.1:80")}}
	w["s7"] = changed
	after, _ := b.Build(c, w)
	for i := range after {
		if after[i].Owner != "s7" && after[i].Message != before[i].Message {
			t.Errorf("%s was made anew", after[i].Ref)
		}
	}
	if refusals := Safe(before, after, May{}); len(refusals) > 0 {
		t.Error(refusals)
	}
}
