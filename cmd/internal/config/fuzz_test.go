package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/envoy/edge"
)

// FuzzParse: nothing panics, every refusal has its problems, and what loads has
// passed every check and stays as it is when it is read again.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 3 {
		f.Fatalf("the examples are missing: %v, %v", files, err)
	}
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(running))
	f.Add([]byte("services: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parse("x.yaml", data)
		if err != nil {
			ps, ok := errors.AsType[Problems](err)
			if !ok || len(ps) == 0 {
				t.Fatalf("refused without a problem: %v (%T)", err, err)
			}
			for _, p := range ps {
				if p.Text == "" || p.Line < 0 || p.Line > strings.Count(string(data), "\n")+strings.Count(string(data), "\r")+2 {
					t.Fatalf("problem %+v", p)
				}
			}
			return
		}
		sound(t, c)
		again, err := parse("x.yaml", data)
		if err != nil {
			t.Fatalf("read again: %v", err)
		}
		if changes, refused := c.Changed(again); len(changes)+len(refused) > 0 {
			t.Fatalf("read again it differs: %q, %v", changes, refused)
		}
	})
}

// sound states what every user of a Config relies on, in other words than check.
func sound(t *testing.T, c *Config) {
	if (c.Discovery.File == "") == (c.Discovery.Consul == nil) || (c.State.File == "") == (c.State.Consul == nil) {
		t.Fatalf("discovery %+v, state %+v", c.Discovery, c.State)
	}
	if !c.XDS.Listen.IsValid() || !c.API.Listen.IsValid() || !c.API.Listen.Addr().IsLoopback() && c.API.Token == "" {
		t.Fatalf("xds %+v, api %+v", c.XDS, c.API)
	}
	listeners, addresses := map[string]int{}, map[string]bool{}
	for _, l := range c.Listeners {
		at := fmt.Sprint(l.Address.Addr().Unmap(), l.Address.Port())
		if _, twice := listeners[l.Name]; twice || addresses[at] || l.Name == "" || l.Address.Port() == 0 {
			t.Fatalf("listener %+v", l)
		}
		listeners[l.Name], addresses[at] = 0, true
	}
	services, routes, tcp := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, s := range c.Services {
		if _, there := listeners[s.Listener]; !there || services[string(s.Name)] || s.Name == "" || s.ConsulService == "" || s.Live.Other().Other() != s.Live {
			t.Fatalf("service %+v", s)
		}
		if bad := s.Policy.Check(); len(bad) > 0 {
			t.Fatalf("service %s: policy %v", s.Name, bad)
		}
		services[string(s.Name)] = true
		listeners[s.Listener]++
		if s.Protocol == edge.TCP {
			tcp[s.Listener] = true
			continue
		}
		if len(s.Domains) == 0 || !strings.HasPrefix(s.Prefix, "/") {
			t.Fatalf("service %+v", s)
		}
		for _, d := range s.Domains {
			route := s.Listener + " " + strings.ToLower(d) + strings.TrimRight(s.Prefix, "/")
			if routes[route] {
				t.Fatalf("route %s twice", route)
			}
			routes[route] = true
		}
	}
	for name, n := range listeners {
		if n == 0 || tcp[name] && n != 1 {
			t.Fatalf("listener %s carries %d services, TCP %t", name, n, tcp[name])
		}
	}
}
