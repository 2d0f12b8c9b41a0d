package file

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/discovery"
)

const good = `services:
  chat:
    - {id: chat-g1, colour: green, address: "[2001:db8::1]:9001", health: critical}
    - {id: chat-b1, colour: blue, address: 127.0.0.1:9001, drain: 127.0.0.1:9101, capacity: 5000, version: v1, health: passing}
  mail: []
`

func TestParse(t *testing.T) {
	world, err := Parse("fleet.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	want := discovery.Fleet{Instances: []discovery.Instance{
		{
			ID: "chat-b1", Colour: discovery.Blue, Addr: netip.MustParseAddrPort("127.0.0.1:9001"), Health: discovery.Passing,
			Drain: "http://127.0.0.1:9101", Capacity: 5000, Version: "v1",
		},
		{ID: "chat-g1", Colour: discovery.Green, Addr: netip.MustParseAddrPort("[2001:db8::1]:9001"), Health: discovery.Critical},
	}}
	if len(world) != 2 || !world["chat"].Equal(want) || len(world["mail"].Instances) != 0 {
		t.Fatalf("%+v", world)
	}
}

func TestParseLeavesOut(t *testing.T) {
	for line, want := range map[string]string{
		"{id: a, address: 127.0.0.1:1}":                            "a: it has no colour; give it colour: blue or colour: green",
		"{id: a, colour: red, address: 127.0.0.1:1}":               `a: its colour "red" is no colour; use blue or green`,
		"{id: a, colour: blue}":                                    "a: it has no address; register it with an IP address",
		"{id: a, colour: blue, address: chat.local:80}":            `a: its address "chat.local" is no IP address; register it with one`,
		"{id: a, colour: blue, address: 127.0.0.1}":                "a: its port is 0; register it with one between 1 and 65535",
		"{id: a, colour: blue, address: 127.0.0.1:0}":              "a: its port is 0; register it with one between 1 and 65535",
		"{id: a, colour: blue, address: 127.0.0.1:1, capacity: 0}": "",
		"{id: a, colour: blue, address: 127.0.0.1:1}":              "",
	} {
		world, err := Parse("fleet.yaml", []byte("services: {chat: ["+line+"]}"))
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		var got []string
		for _, l := range world["chat"].LeftOut {
			got = append(got, string(l.ID)+": "+l.Reason)
		}
		if strings.Join(got, "|") != want {
			t.Errorf("%s: left out %q, want %q", line, got, want)
		}
		if notes := world["chat"].Notes; strings.Contains(line, "capacity") != (len(notes) == 1) {
			t.Errorf("%s: notes %+v", line, notes)
		}
	}
}

func TestParseNamesWhatIsWrongAndWhere(t *testing.T) {
	for name, c := range map[string]struct{ content, want string }{
		"empty":        {" \n\n", "fleet.yaml: the file is empty; to have no instances write services: {}"},
		"only comment": {"# soon\n", "fleet.yaml: there is no services; to have no instances write services: {}"},
		"no services":  {"services:\n", "fleet.yaml: there is no services; to have no instances write services: {}"},
		"unknown key": {"services:\n  chat:\n    - id: a\n      color: blue\n",
			"fleet.yaml:4: unknown key color"},
		"unknown key at the top": {"service: {}\n", "fleet.yaml:1: unknown key service"},
		"wrong type": {"services:\n  chat:\n    - id: a\n      capacity: lots\n",
			"fleet.yaml:4: cannot unmarshal !!str `lots` into int"},
		"key twice":   {"services:\n  chat: []\n  chat: []\n", `fleet.yaml:3: mapping key "chat" already defined at line 2`},
		"syntax":      {"services:\n  chat: [\n", "fleet.yaml:2: did not find expected node content"},
		"two at once": {"services:\n  a: 1\n  b: 2\n", "fleet.yaml:2: cannot unmarshal !!int `1` into a list of instances; fleet.yaml:3: cannot unmarshal !!int `2` into a list of instances"},
		"no id":       {"services:\n  chat:\n    - id: a\n    - colour: blue\n", "fleet.yaml:4: the instance has no id; give it one"},
		"id twice":    {"services:\n  chat:\n    - id: a\n    - id: a\n", "fleet.yaml:4: there is a second instance with the id a; give each its own"},
		"odd health":  {"services:\n  chat:\n    - id: a\n      health: fine\n", `fleet.yaml:3: a has the health "fine"; use passing, warning, critical or maintenance`},
		"two documents": {"services: {}\n---\nservices: {}\n",
			"fleet.yaml: there is a second YAML document after ---; put everything into one"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Parse("fleet.yaml", []byte(c.content)); err == nil || err.Error() != c.want {
				t.Errorf("%v\nwant %s", err, c.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("services: {a: &x [{id: a, colour: blue, address: 127.0.0.1:1}], b: *x}"))
	f.Add([]byte("services: &a {<<: *a}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		world, err := Parse("fleet.yaml", data)
		if err != nil {
			if world != nil || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%v with %+v", err, world)
			}
			return
		}
		for _, service := range slices.Sorted(maps.Keys(world)) {
			for n, i := range world[service].Instances {
				if n > 0 && world[service].Instances[n-1].ID >= i.ID {
					t.Fatalf("not sorted or not unique: %+v", world[service].Instances)
				}
				if !i.Addr.IsValid() || i.Addr.Port() == 0 || i.Health == "" || i.Colour.Other().Other() != i.Colour {
					t.Fatalf("%+v", i)
				}
			}
		}
	})
}
