package edge_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/envoy/edge/edgetest"
)

// shown is a configuration in few words: NAME@LISTENER PREFIX, and the listeners.
func shown(c edge.Config) string {
	var out []string
	for _, s := range c.Services {
		out = append(out, fmt.Sprintf("%s@%s%s", s.Name, s.Listener, s.Prefix))
	}
	for _, l := range c.Listeners {
		out = append(out, fmt.Sprintf("%s=%s", l.Name, l.Address))
	}
	return strings.Join(out, " ")
}

func TestSettle(t *testing.T) {
	under := func(name discovery.Service, prefix string) edge.Service {
		return edge.Service{Name: name, Listener: "web", Prefix: prefix}
	}
	last, _ := edge.Settle(web(under("a", "/a"), under("b", "/b")), edge.Config{})
	more := edge.Listener{Name: "more", Address: addr("127.0.0.1:81")}
	with := func(c edge.Config, l ...edge.Listener) edge.Config {
		c.Listeners = append(slices.Clone(c.Listeners), l...)
		return c
	}
	for name, test := range map[string]struct {
		next   edge.Config
		want   string
		faults map[discovery.Service]string
	}{
		"nothing wrong":           {web(under("a", "/x"), under("c", "/c")), "a@web/x c@web/c web=127.0.0.1:80", nil},
		"one keeps its last":      {web(under("a", "/x?"), under("b", "/y")), "a@web/a b@web/y web=127.0.0.1:80", map[discovery.Service]string{"a": "services[0].prefix"}},
		"a new one is left out":   {web(under("c", "/c?"), under("a", "/x")), "a@web/x web=127.0.0.1:80", map[discovery.Service]string{"c": "services[0].prefix"}},
		"whose place is taken":    {web(under("c", "/a"), under("a", "/a"), under("b", "/y")), "a@web/a b@web/y web=127.0.0.1:80", map[discovery.Service]string{"c": "services[1].domains[0]"}},
		"both moved to one place": {web(under("a", "/x"), under("b", "/x")), "a@web/a b@web/b web=127.0.0.1:80", map[discovery.Service]string{"a": "services[1].domains[0]", "b": "services[1].domains[0]"}},
		"what follows": {web(under("b", "/a"), under("a", "/x?")), "b@web/b a@web/a web=127.0.0.1:80",
			map[discovery.Service]string{"a": "services[1].prefix", "b": "services[1].domains[0]"}},
		"there twice":    {web(under("a", "/a"), under("a", "/x"), under("b", "/y")), "a@web/a b@web/y web=127.0.0.1:80", map[discovery.Service]string{"a": "services[1].name"}},
		"one retires":    {web(under("b", "/b")), "b@web/b web=127.0.0.1:80", nil},
		"listener moved": {edge.Config{Listeners: []edge.Listener{{Name: "web", Address: addr("127.0.0.1:82")}}, Services: last.Services}, "a@web/a b@web/b web=127.0.0.1:80", nil},
		"listener gone":  {edge.Config{Listeners: []edge.Listener{more}, Services: []edge.Service{under("a", "/a"), {Name: "b", Listener: "more"}}}, "a@web/a b@more more=127.0.0.1:81 web=127.0.0.1:80", nil},
		"bad new listener": {with(web(under("a", "/a"), edge.Service{Name: "b", Listener: "more"}, edge.Service{Name: "c", Listener: "more", Prefix: "/c"}), edge.Listener{Name: "more", Address: addr("127.0.0.1:80")}),
			"a@web/a b@web/b web=127.0.0.1:80", map[discovery.Service]string{"b": "listeners[1].address", "c": "listeners[1].address"}},
		"another protocol": {web(under("a", "/a"), under("b", "/b"), edge.Service{Name: "raw", Listener: "web", Protocol: edge.TCP}), "a@web/a b@web/b web=127.0.0.1:80",
			map[discovery.Service]string{"raw": "services[2].listener"}},
		"nothing at all": {edge.Config{}, " web=127.0.0.1:80", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, faults := edge.Settle(test.next, last)
			if strings.TrimSpace(shown(got)) != strings.TrimSpace(test.want) {
				t.Errorf("got %s\nwant %s", shown(got), test.want)
			}
			keys := map[discovery.Service]string{}
			for name, f := range faults {
				keys[name] = f.Key
			}
			if len(keys)+len(test.faults) > 0 && !reflect.DeepEqual(keys, test.faults) {
				t.Errorf("faults %v, want %v", faults, test.faults)
			}
		})
	}
}

// A listener of a TCP service that is left out is not written as one for HTTP.
func TestSettleKeepsTheKind(t *testing.T) {
	c, faults := edge.Settle(edge.Config{
		Listeners: []edge.Listener{{Name: "raw", Address: addr("127.0.0.1:80")}},
		Services:  []edge.Service{{Name: "line", Listener: "raw", Protocol: edge.TCP, StormGuard: -1}},
	}, edge.Config{})
	if len(c.Services) != 0 || len(c.Listeners) != 1 || c.Listeners[0].Protocol != edge.TCP || faults["line"].Key != "services[0].storm_guard" {
		t.Errorf("%+v, %v", c, faults)
	}
}

// Whatever follows on whatever: what is settled breaks no rule, who is not at
// fault is as wanted, who is has a reason, and the listeners stay.
func FuzzSettle(f *testing.F) {
	for seed := range uint64(300) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 11))
		var last edge.Config
		for range 4 {
			next := edgetest.Random(r, 3, 6, 8)
			got, faults := edge.Settle(next, last)
			for _, fault := range got.Check() {
				if len(fault.Listeners)+len(fault.Services) > 0 {
					t.Fatalf("%v\nafter %+v\nwanted %+v\nsettled %+v", fault, last, next, got)
				}
			}
			for _, l := range last.Listeners {
				if !slices.ContainsFunc(got.Listeners, func(n edge.Listener) bool {
					return n.Protocol == l.Protocol && reflect.DeepEqual(n.Written(), l.Written())
				}) {
					t.Fatalf("listener %+v is not as it was in %+v", l, got)
				}
			}
			for _, s := range next.Services {
				is := slices.IndexFunc(got.Services, func(g edge.Service) bool { return g.Name == s.Name })
				if _, at := faults[s.Name]; !at && (is < 0 || !reflect.DeepEqual(got.Services[is], s)) {
					t.Fatalf("service %+v has no fault and is not in %+v", s, got)
				}
			}
			last = got
		}
	})
}
