package config

import (
	"fmt"
	"net/url"
	"os/exec"
	"slices"
	"strings"
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
