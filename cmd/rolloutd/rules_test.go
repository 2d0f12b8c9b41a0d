package main

import (
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"go.yaml.in/yaml/v3"

	"github.com/sluice-proxy/sluice/cmd/internal/config"
	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/envoy/edge/edgetest"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/units"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// loaded is a configuration of these listeners and services, as YAML, as it is
// read by validate, start and reload.
func loaded(t *testing.T, rest string) (*config.Config, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"i.yaml": "services: {}\n", "s.yaml": "discovery: {file: i.yaml}\n" + rest} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return config.Load(filepath.Join(dir, "s.yaml"))
}

func mustLoad(t *testing.T, rest string) *config.Config {
	t.Helper()
	c, err := loaded(t, rest)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// evenly is a wish with one instance, at so many shares for blue.
func evenly(blue units.Share, at string) desired.Wish {
	return desired.Wish{
		Proxies: 1, Weights: map[discovery.Colour]units.Share{discovery.Blue: blue, discovery.Green: units.Whole - blue},
		Endpoints: map[discovery.Colour][]desired.Endpoint{discovery.Blue: {{ID: "b1", Addr: netip.MustParseAddrPort(at)}}, discovery.Green: {}},
	}
}

func evenlyAll(c edge.Config) desired.Wishes {
	w := desired.Wishes{}
	for _, s := range c.Services {
		w[s.Name] = evenly(units.Whole, "10.0.0.1:80")
	}
	return w
}

// What was valid for rolloutctl validate, was reloaded, and then was the last
// thing that any service heard.
func TestRefusedByValidateToo(t *testing.T) {
	const web = "listeners: [{name: web, address: 0.0.0.0:8080}]\n"
	for name, test := range map[string]struct{ rest, want string }{
		"domain with port": {web + `services: [{name: chat, domains: ["chat.example.com:8080"]}]`,
			`s.yaml:3: services[0].domains[0]: leave the port out of "chat.example.com:8080"; any port matches`},
		"prefix with slash": {web + "services:\n- {name: a, prefix: /chat}\n- {name: b, prefix: /chat/}",
			`s.yaml:5: services[1].domains[0]: */chat of listener "web" belongs to service a already`},
		"IPv4 in IPv6 clothes": {"listeners:\n- {name: web, address: 0.0.0.0:8080}\n- {name: web6, address: \"[::ffff:0.0.0.0]:8080\"}\nservices: [{name: a, listener: web}, {name: b, listener: web6}]",
			"s.yaml:4: listeners[1].address: 0.0.0.0:8080 stands at listeners[0].address already"},
	} {
		if _, err := loaded(t, test.rest); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v\nwant %s", name, err, test.want)
		}
	}
}

// written is a configuration as YAML, without what is not set.
func written(t *testing.T, c edge.Config) string {
	t.Helper()
	var out struct {
		Listeners []map[string]any `yaml:"listeners"`
		Services  []map[string]any `yaml:"services"`
	}
	for _, l := range c.Listeners {
		m := map[string]any{"name": l.Name}
		if l.Address.IsValid() {
			m["address"] = l.Address.String()
		}
		if l.TLS != nil {
			var more []map[string]any
			for _, p := range l.TLS.More {
				more = append(more, map[string]any{"certificate": p.Certificate, "key": p.Key})
			}
			m["tls"] = map[string]any{"certificate": l.TLS.Certificate, "key": l.TLS.Key, "more": more}
		}
		if l.TrustedHops != 0 {
			m["trusted_hops"] = l.TrustedHops
		}
		if l.ProxyProtocol != "" {
			m["proxy_protocol"] = string(l.ProxyProtocol)
		}
		if l.AccessLog.File != "" {
			m["access_log"] = map[string]any{"file": l.AccessLog.File}
		}
		out.Listeners = append(out.Listeners, m)
	}
	for _, s := range c.Services {
		m := map[string]any{"name": string(s.Name), "listener": s.Listener, "protocol": string(s.Protocol)}
		if s.Domains != nil {
			m["domains"] = s.Domains
		}
		if s.Prefix != "" {
			m["prefix"] = s.Prefix
		}
		if s.HTTP2 {
			m["http2"] = true
		}
		if s.StormGuard != 0 {
			m["storm_guard"] = s.StormGuard.String()
		}
		out.Services = append(out.Services, m)
	}
	text, err := yaml.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// agree holds validate and the builder against each other, and reports whether
// they take it: what loads is built whole and passes the guard; what the builder
// leaves out validate refuses, with key and line.
func agree(t *testing.T, seed uint64) bool {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 19))
	c := edgetest.Random(r, 3, 5, 4+r.IntN(60))
	text := written(t, c)
	conf, err := loaded(t, text)
	if err == nil {
		built := conf.Edge()
		rs, errs := envoy.Build(built, evenlyAll(built))
		if refused := envoy.Safe(nil, rs, envoy.May{}); len(errs)+len(refused) > 0 {
			t.Errorf("it is valid, and not built: %v %v\n%s", errs, refused, text)
		}
		return true
	}
	all, ok := errors.AsType[config.Problems](err)
	if !ok || len(all) == 0 {
		t.Fatalf("refused without a problem: %v", err)
	}
	keys := map[string]bool{}
	for _, p := range all {
		if p.Line == 0 || p.Key == "" || p.Text == "" {
			t.Errorf("%+v\n%s", p, text)
		}
		keys[p.Key] = true
	}
	for i, s := range c.Services {
		if s.Listener == "" && len(c.Listeners) == 1 {
			c.Services[i].Listener = c.Listeners[0].Name // as the file means it
		}
	}
	_, errs := envoy.Build(c, evenlyAll(c))
	for name, err := range errs {
		if f, ok := errors.AsType[edge.Fault](err); !ok || !keys[f.Key] {
			t.Errorf("service %q is not built (%v), and validate says only %v\n%s", name, err, all, text)
		}
	}
	return false
}

func FuzzRules(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) { agree(t, seed) })
}

// Both sides of the border are tried.
func TestRulesAgree(t *testing.T) {
	taken, refused := 0, 0
	for seed := range uint64(600) {
		if agree(t, seed) {
			taken++
		} else {
			refused++
		}
	}
	if taken < 40 || refused < 40 {
		t.Errorf("%d taken, %d refused; too few are near the border", taken, refused)
	}
}

const twoServices = `listeners: [{name: web, address: 0.0.0.0:8080}]
services:
  - {name: chat, domains: [chat.example.com]}
  - {name: other, domains: [other.example.com]}
`

// told finds what is published.
func told[M any](t *testing.T, p *publisher, kind, name string) M {
	t.Helper()
	for _, r := range p.set {
		if m, ok := r.Message.(M); ok && r.Ref == (resource.Ref{Type: kind, Name: name}) {
			return m
		}
	}
	t.Fatalf("%s %s is not published", kind, name)
	panic("unreachable")
}

// hosts are the domains that are published on listener web.
func hosts(t *testing.T, p *publisher) string {
	var out []string
	for _, v := range told[*routev3.RouteConfiguration](t, p, envoy.RouteType, "web").VirtualHosts {
		out = append(out, v.Domains...)
	}
	return strings.Join(out, " ")
}

func port(t *testing.T, p *publisher, cluster string) uint32 {
	e := told[*endpointv3.ClusterLoadAssignment](t, p, envoy.EndpointType, cluster).Endpoints[0].LbEndpoints
	return e[len(e)-1].GetEndpoint().GetAddress().GetSocketAddress().GetPortValue()
}

// Even a configuration that should have been refused costs nobody anything: the
// service that is at fault keeps its last good one, with new endpoints, and says
// why; the others go on.
func TestBadServiceKeepsItsConfiguration(t *testing.T) {
	good := mustLoad(t, twoServices)
	p := newPublisher(good, slog.New(slog.DiscardHandler))
	if refused := p.Publish(desired.Wishes{"chat": evenly(units.Whole, "10.0.0.1:80"), "other": evenly(units.Whole, "10.0.0.1:80")}); len(refused) > 0 {
		t.Fatal(refused)
	}
	bad := mustLoad(t, twoServices+"  - {name: new, domains: [new.example.com]}\n")
	bad.Services[0].Domains = []string{"chat.example.com:8080"}
	bad.Services[1].Domains = []string{"another.example.com"}
	bad.Services[2].Prefix = "new"
	p.configure(bad)
	next := func(at string) desired.Wish {
		w := evenly(0, "10.0.0.1:80")
		w.Endpoints[discovery.Blue] = append(w.Endpoints[discovery.Blue], desired.Endpoint{ID: "b2", Addr: netip.MustParseAddrPort(at)})
		return w
	}
	for range 2 { // the reason stays while the fault does
		refused := p.Publish(desired.Wishes{"chat": next("10.0.0.2:81"), "other": next("10.0.0.2:82"), "new": next("10.0.0.2:83")})
		for name, want := range map[discovery.Service]string{
			"chat": `s.yaml:4: services[0].domains[0]: leave the port out of "chat.example.com:8080"; any port matches`,
			"new":  `s.yaml:6: services[2].prefix: "new" is no prefix of a path`,
		} {
			if !strings.Contains(refused[name], want) {
				t.Errorf("%s: %q, want %q in it", name, refused[name], want)
			}
		}
		if len(refused) != 2 {
			t.Errorf("refused: %v", refused)
		}
		if got := hosts(t, p); got != "another.example.com chat.example.com" {
			t.Errorf("published for %s", got)
		}
		if chat, other := port(t, p, "chat-blue"), port(t, p, "other-blue"); chat != 81 || other != 82 {
			t.Errorf("the newest endpoints are %d and %d", chat, other)
		}
	}
	p.configure(good)
	if refused := p.Publish(desired.Wishes{"chat": next("10.0.0.2:81"), "other": next("10.0.0.2:82")}); len(refused) > 0 || hosts(t, p) != "chat.example.com other.example.com" {
		t.Errorf("mended: %v, published for %s", refused, hosts(t, p))
	}
}

// A wish that is refused and was never good holds up nobody, and what follows
// from it hides no reason.
func TestBadWishStaysAlone(t *testing.T) {
	p := newPublisher(mustLoad(t, twoServices), slog.New(slog.DiscardHandler))
	light := evenly(units.Whole, "10.0.0.1:80")
	light.Weights = map[discovery.Colour]units.Share{discovery.Blue: 1}
	refused := p.Publish(desired.Wishes{"chat": light, "other": evenly(units.Whole, "10.0.0.1:80")})
	if why := refused["chat"]; !strings.Contains(why, "the weights sum to 0.01%") || len(refused) != 1 || hosts(t, p) != "other.example.com" {
		t.Errorf("refused %v, published for %s", refused, hosts(t, p))
	}
	// What is lost holds connections, so chat keeps its last wish.
	both := desired.Wishes{"chat": evenly(units.Whole, "10.0.0.1:80"), "other": evenly(units.Whole, "10.0.0.1:80")}
	if refused := p.Publish(maps.Clone(both)); len(refused) > 0 {
		t.Fatal(refused)
	}
	both["chat"], both["other"] = light, evenly(0, "10.0.0.1:80")
	refused = p.Publish(both)
	if why := refused["chat"]; !strings.Contains(why, "the weights sum to") || len(refused) != 1 || hosts(t, p) != "chat.example.com other.example.com" {
		t.Errorf("refused %v, published for %s", refused, hosts(t, p))
	}
}
