package consul

import (
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-proxy/sluice/discovery"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

var plain = tags{blue: "blue", green: "green"}

// TestTranslate reads Consul's answers in testdata/*.json and compares the fleets
// with *.fleet.json beside them.
func TestTranslate(t *testing.T) {
	answers, _ := filepath.Glob("testdata/*.json")
	answers = slices.DeleteFunc(answers, func(p string) bool { return strings.HasSuffix(p, ".fleet.json") })
	if len(answers) == 0 {
		t.Fatal("no answers in testdata")
	}
	for _, path := range answers {
		t.Run(filepath.Base(path), func(t *testing.T) {
			var entries []*api.ServiceEntry
			decodeFile(t, path, &entries)
			got := translate(entries, plain)
			golden := strings.TrimSuffix(path, ".json") + ".fleet.json"
			if *update {
				text, _ := json.MarshalIndent(got, "", "  ")
				if err := os.WriteFile(golden, append(text, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			var want discovery.Fleet
			decodeFile(t, golden, &want)
			if !got.Equal(want) {
				text, _ := json.MarshalIndent(got, "", "  ")
				t.Fatalf("got %s\nwant what %s says (rewrite it with -update)", text, golden)
			}
			for range 20 {
				rand.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
				if again := translate(entries, plain); !reflect.DeepEqual(again, got) {
					t.Fatalf("another order gives another fleet: %+v", again)
				}
			}
		})
	}
}

func decodeFile(t *testing.T, path string, into any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func TestHealthIsTheWorstOfAll(t *testing.T) {
	check := func(id, status string) *api.HealthCheck { return &api.HealthCheck{CheckID: id, Status: status} }
	passing, warning, critical := check("p", "passing"), check("w", "warning"), check("c", "critical")
	for name, c := range map[string]struct {
		checks api.HealthChecks
		want   discovery.Health
	}{
		"no checks":           {nil, discovery.Passing},
		"passing":             {api.HealthChecks{passing, passing}, discovery.Passing},
		"warning":             {api.HealthChecks{passing, warning, passing}, discovery.Warning},
		"critical":            {api.HealthChecks{critical, warning}, discovery.Critical},
		"critical, warning":   {api.HealthChecks{warning, critical, passing}, discovery.Critical},
		"unknown":             {api.HealthChecks{passing, check("x", "odd")}, discovery.Critical},
		"node maintenance":    {api.HealthChecks{critical, check("_node_maintenance", "critical")}, discovery.Maintenance},
		"service maintenance": {api.HealthChecks{check("_service_maintenance:chat-1", "critical"), passing}, discovery.Maintenance},
		"nil":                 {api.HealthChecks{nil}, discovery.Passing},
	} {
		if got := health(c.checks); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestTagsCanBeNamed(t *testing.T) {
	entry := &api.ServiceEntry{Service: &api.AgentService{ID: "a", Address: "10.0.0.1", Port: 80, Tags: []string{"even", "blue"}}}
	f := translate([]*api.ServiceEntry{entry}, tags{blue: "odd", green: "even"})
	if len(f.Instances) != 1 || f.Instances[0].Colour != discovery.Green {
		t.Fatalf("%+v", f)
	}
	f = translate([]*api.ServiceEntry{entry}, tags{blue: "v1", green: "v2"})
	if len(f.LeftOut) != 1 || f.LeftOut[0].Reason != "it has no colour; give it the tag v1 or v2" {
		t.Fatalf("%+v", f)
	}
}

func TestMeshAndWeights(t *testing.T) {
	entry := func(id string, change func(*api.AgentService)) *api.ServiceEntry {
		s := &api.AgentService{ID: id, Address: "10.0.0.1", Port: 80 + int(id[0]), Tags: []string{"blue"}}
		change(s)
		return &api.ServiceEntry{Service: s}
	}
	f := translate([]*api.ServiceEntry{
		entry("a", func(s *api.AgentService) { s.Weights = api.AgentWeights{Passing: 1, Warning: 1} }),
		entry("b", func(s *api.AgentService) { s.Weights = api.AgentWeights{Passing: 9, Warning: 1} }),
		entry("c", func(s *api.AgentService) { s.Kind = api.ServiceKindConnectProxy }),
	}, plain)
	left := []discovery.LeftOut{{ID: "c", Reason: "it is a connect-proxy of Consul's mesh and no instance; name the service behind it"}}
	notes := []discovery.Note{{ID: "b", Text: "its weights, 9 passing and 1 warning, are not used: proxies share new connections evenly"}}
	if in(f) != "a b c?" || !slices.Equal(f.LeftOut, left) || !slices.Equal(f.Notes, notes) {
		t.Errorf("%+v", f)
	}
}

func FuzzTranslate(f *testing.F) {
	answers, _ := filepath.Glob("testdata/*.json")
	for _, path := range answers {
		if data, err := os.ReadFile(path); err == nil && !strings.HasSuffix(path, ".fleet.json") {
			f.Add(data)
		}
	}
	f.Add([]byte(`[null,{},{"Service":{}},{"Node":{},"Service":{"ID":"a","Meta":null},"Checks":[null]}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var entries []*api.ServiceEntry
		if json.Unmarshal(data, &entries) != nil {
			return
		}
		fleet := translate(entries, plain)
		if len(fleet.Instances)+len(fleet.LeftOut) != len(entries) {
			t.Fatalf("%d entries became %+v", len(entries), fleet)
		}
		if !slices.IsSortedFunc(fleet.LeftOut, func(a, b discovery.LeftOut) int { return strings.Compare(string(a.ID), string(b.ID)) }) {
			t.Fatalf("not sorted: %+v", fleet.LeftOut)
		}
		for n, i := range fleet.Instances {
			if n > 0 && fleet.Instances[n-1].ID >= i.ID {
				t.Fatalf("not sorted or not unique: %+v", fleet.Instances)
			}
		}
		slices.Reverse(entries)
		if again := translate(entries, plain); !reflect.DeepEqual(again, fleet) {
			t.Fatalf("another order gives another fleet:\n%+v\n%+v", fleet, again)
		}
	})
}
