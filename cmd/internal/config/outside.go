package config

import (
	"fmt"
	"net/url"
	"os/exec"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/discovery"
)

// checkOutside looks at what gates and hooks ask, run and call. Nothing of it is
// touched: a query that Prometheus does not understand closes its gate.
func (r *reading) checkOutside(c *Config) {
	p := c.Prometheus
	switch {
	case p.Address != "":
		r.checkURL("prometheus.address", p.Address)
		if u, err := url.Parse(p.Address); err == nil && (u.RawQuery != "" || u.Fragment != "") {
			r.refuse("prometheus.address", "%q has a query; write only what stands in front of /api/v1", p.Address)
		}
	case r.given("prometheus"):
		r.refuse("prometheus.address", "is missing; write a URL such as http://127.0.0.1:9090")
	}
	for i, s := range c.Services {
		policy := fmt.Sprintf("services[%d].policy", i)
		for j, g := range s.Policy.Gates {
			key := fmt.Sprintf("%s.gates[%d]", policy, j)
			if g.Query != "" && p.Address == "" {
				r.refuse(key+".query", "asks Prometheus, but it is not known where that is; add prometheus: {address: ...}")
			}
			r.checkCall(key, g.Command, g.URL)
		}
		if h := s.Policy.Hook; h != nil {
			r.checkCall(policy+".hook", h.Command, h.URL)
		}
	}
}

func (r *reading) checkCall(key string, command []string, address string) {
	if address != "" {
		r.checkURL(key+".url", address)
	}
	if len(command) == 0 {
		return
	}
	if strings.ContainsRune(strings.Join(command, ""), 0) {
		r.refuse(key+".command", "holds a zero byte, which no program can be given")
	} else if command[0] == "" {
		r.refuse(key+".command", "names no program; write it like [/opt/stop.sh, --now]")
	} else if _, err := exec.LookPath(command[0]); err != nil {
		r.note(key+".command", "%v; rolloutd must find it", err)
	}
}

func (r *reading) checkURL(key, address string) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		r.refuse(key, "%q is no URL that can be called; write it like http://host:port/path", address)
	case u.User != nil:
		r.refuse(key, "holds a user name or a password, which anybody who sees the configuration could read; remove it")
	}
}

// Query is a query of a service's gate, and the key at which it stands.
type Query struct{ Key, Text string }

// Queries lists the queries of a service's gates; of all services if name is empty.
func (c *Config) Queries(name discovery.Service) (all []Query) {
	for i, s := range c.Services {
		for j, g := range s.Policy.Gates {
			if g.Query != "" && (name == "" || s.Name == name) {
				all = append(all, Query{fmt.Sprintf("services[%d].policy.gates[%d].query", i, j), g.Query})
			}
		}
	}
	return all
}

// Unchecked lists what no one can tell who only reads the configuration: what is asked
// and called over a network.
func (c *Config) Unchecked() (all Problems) {
	for _, q := range c.Queries("") {
		all = append(all, c.At(q.Key, "not checked: only Prometheus can parse it; rolloutd has it parsed at its start, at SIGHUP and by plan"))
	}
	for i, s := range c.Services {
		for j, g := range s.Policy.Gates {
			if g.URL != "" {
				all = append(all, c.At(fmt.Sprintf("services[%d].policy.gates[%d].url", i, j), "not checked: nothing was asked there; plan asks it"))
			}
		}
		if h := s.Policy.Hook; h != nil && h.URL != "" {
			all = append(all, c.At(fmt.Sprintf("services[%d].policy.hook.url", i), "not checked: nothing was called there"))
		}
	}
	return all
}

// commands are those of the service's gates and hook, none of them empty.
func (s Service) commands() (all [][]string) {
	for _, g := range s.Policy.Gates {
		all = append(all, g.Command)
	}
	if h := s.Policy.Hook; h != nil {
		all = append(all, h.Command)
	}
	return slices.DeleteFunc(all, func(c []string) bool { return len(c) == 0 })
}
