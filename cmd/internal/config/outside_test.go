package config

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const outsideHead = "discovery: {file: instances.yaml}\nlisteners: [{name: web, address: '0.0.0.0:8080'}]\n"

func TestGatesAndHook(t *testing.T) {
	c := parsed(t, outsideHead+`prometheus: {address: 'https://metrics.example.com/prom', token_file: testdata/api.token}
services:
  - name: chat
    policy:
      gates:
        - {name: error_rate, query: 'sum(rate(errors[1m]))', below: 0.01, timeout: 3s}
        - {name: smoke, command: [./bin/smoke, --fast]}
        - {name: tickets, url: 'https://ci.example.com/green'}
      abort_after: 5m
      hook: {command: [nomad-stop, --quiet], timeout: 2m}
`)
	if p := c.Prometheus; p.Address != "https://metrics.example.com/prom" || p.Token != "one-word-secret" {
		t.Errorf("prometheus %+v", p)
	}
	p := c.Services[0].Policy
	if g := p.Gates[0]; *g.Below != 0.01 || g.Above != nil || g.Within() != 3*time.Second || p.AbortAfter.D() != 5*time.Minute {
		t.Errorf("gate %+v", g)
	}
	if g := p.Gates[1]; !slices.Equal(g.Command, []string{filepath.Join("bin", "smoke"), "--fast"}) {
		t.Errorf("%q; a relative program is relative to the file", g.Command)
	}
	if h := p.Hook; h.Command[0] != "nomad-stop" || h.Within() != 2*time.Minute {
		t.Errorf("hook %+v; a name alone is looked for on PATH", h)
	}
	if text := c.Notes.Error(); !strings.Contains(text, "x.yaml:9: services[0].policy.gates[1].command: ") || !strings.Contains(text, "rolloutd must find it") {
		t.Errorf("notes: %s", text)
	}
}

func TestOutsideProblems(t *testing.T) {
	const policy = "services: [{name: chat, policy: {"
	for name, test := range map[string]struct{ yaml, want string }{
		"no Prometheus":   {policy + "gates: [{name: a, query: up, above: 0}]}}]", "x.yaml:3: services[0].policy.gates[0].query: asks Prometheus, but it is not known where that is; add prometheus: {address: ...}"},
		"no address":      {"prometheus: {token_file: testdata/api.token}\nservices: [{name: a}]", "x.yaml:3: prometheus.address: is missing; write a URL"},
		"no URL":          {"prometheus: {address: 'localhost:9090'}\nservices: [{name: a}]", `x.yaml:3: prometheus.address: "localhost:9090" is no URL`},
		"query in URL":    {"prometheus: {address: 'http://a/?b=c'}\nservices: [{name: a}]", `x.yaml:3: prometheus.address: "http://a/?b=c" has a query`},
		"password":        {"prometheus: {address: 'http://a:b@c'}\nservices: [{name: a}]", "x.yaml:3: prometheus.address: holds a user name or a password"},
		"unknown key":     {"prometheus: {adress: 'http://a'}\nservices: [{name: a}]", "x.yaml:3: prometheus.adress: is no key here; did you mean address?"},
		"empty token":     {"prometheus: {address: 'http://a', token_file: testdata/empty.token}\nservices: [{name: a}]", "x.yaml:3: prometheus.token_file: testdata/empty.token is empty"},
		"gate's URL":      {policy + "gates: [{name: a, url: 'ftp://a'}]}}]", `x.yaml:3: services[0].policy.gates[0].url: "ftp://a" is no URL that can be called`},
		"hook's URL":      {policy + "hook: {url: nowhere}}}]", `x.yaml:3: services[0].policy.hook.url: "nowhere" is no URL`},
		"empty program":   {policy + "hook: {command: ['']}}}]", "x.yaml:3: services[0].policy.hook.command: names no program"},
		"zero byte":       {policy + "hook: {command: [a, \"b\\0\"]}}}]", "services[0].policy.hook.command: holds a zero byte"},
		"command as text": {policy + "hook: {command: stop it}}}]", `services[0].policy.hook.command: is "stop it"; it must be a list`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parse("x.yaml", []byte(outsideHead+test.yaml)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got:\n%v\nwant in it:\n%s", err, test.want)
			}
		})
	}
}

func TestPrometheusIsFixed(t *testing.T) {
	_, refused := parsed(t, running).Changed(parsed(t, running+"prometheus: {address: 'http://a'}\n"))
	if want := "x.yaml:9: prometheus: changed, but gates are being asked there; restart rolloutd for that"; refused.Error() != want {
		t.Errorf("got %q, want %q", refused, want)
	}
}
