package config

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/units"
)

var update = flag.Bool("update", false, "rewrite the expected texts in testdata")

func TestSmall(t *testing.T) {
	c, err := Load("testdata/small.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if c.Discovery.File != filepath.Join("testdata", "instances.yaml") || c.State.File != filepath.Join("testdata", "sluice-state") || c.State.Consul != nil {
		t.Errorf("discovery %+v, state %+v", c.Discovery, c.State)
	}
	if c.XDS.Listen.String() != "127.0.0.1:18000" || c.API.Listen.String() != "127.0.0.1:18001" || c.API.Token != "" {
		t.Errorf("xds %v, api %+v", c.XDS.Listen, c.API)
	}
	want := Service{Service: edge.Service{Name: "chat", Listener: "web", Protocol: edge.HTTP, Prefix: "/"}, Live: discovery.Blue, ConsulService: "chat", Policy: policy.Default()}
	want.Policy.Funnel = units.Funnel{Close: 100, Every: units.Duration(3 * time.Second)}
	got := c.Services[0]
	if len(got.Domains) != 1 || got.Domains[0] != "*" {
		t.Errorf("domains %q", got.Domains)
	}
	if got.Domains = nil; !sameService(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if len(c.Notes) != 0 {
		t.Errorf("notes: %v", c.Notes)
	}
}

func sameService(a, b Service) bool {
	return a.Name == b.Name && a.Listener == b.Listener && a.Protocol == b.Protocol && a.Prefix == b.Prefix && a.HTTP2 == b.HTTP2 && a.StormGuard == b.StormGuard && reflect.DeepEqual(a.Affinity, b.Affinity) &&
		a.Live == b.Live && a.ConsulService == b.ConsulService && reflect.DeepEqual(a.Policy, b.Policy) && strings.Join(a.Domains, " ") == strings.Join(b.Domains, " ")
}

func TestFull(t *testing.T) {
	c, err := Load("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	d, s := c.Discovery.Consul, c.State.Consul
	if d.Address != "https://consul.example.com:8501" || d.Token != "consul-secret" || d.Datacenter != "dc2" || d.Tags != (Tags{"side-a", "side-b"}) {
		t.Errorf("discovery.consul %+v", d)
	}
	if s.Address != d.Address || s.Token != d.Token || s.Datacenter != d.Datacenter || s.Prefix != "teams/web/sluice" || c.State.File != "" {
		t.Errorf("state.consul %+v; it takes what it has not from discovery.consul", s)
	}
	if c.API.Token != "one-word-secret" || c.Drain.Token != "drain-secret" || !slices.Equal(c.Replicas, []string{"http://10.0.0.3:19001"}) {
		t.Errorf("api %+v, drain %+v, replicas %v", c.API, c.Drain, c.Replicas)
	}
	if tls := c.Listeners[0].TLS; tls == nil || tls.Certificate != "/etc/ssl/web.pem" || tls.Key != "/etc/ssl/web.key" {
		t.Errorf("tls %+v", tls)
	}
	calm := policy.Policy{
		Funnel: units.Funnel{Close: 1000, Every: units.Duration(3 * time.Second)},
		Grace:  units.Duration(30 * time.Second), Canary: 500, Soak: units.Duration(2 * time.Minute), ReturnTimeout: units.Duration(90 * time.Second),
		Window: 3000, Capacity: 20_000, Headroom: 9000, Slow: units.Duration(500 * time.Millisecond), Notice: units.Duration(30 * time.Second), Double: 5000, Order: "oldest",
		Stagger:  policy.Stagger{Instances: units.Portion{Share: 2500}, Soak: units.Duration(time.Minute), First: []string{"chat-b1"}},
		Deadline: units.Duration(time.Hour), Pressure: policy.Hurry, HurryCap: 2000, KillAfter: units.Duration(2 * time.Hour),
		Gates: []policy.Gate{
			{Name: "errors", Query: "rate(errors[1m])", Below: new(0.01), Timeout: units.Duration(2 * time.Second)},
			{Name: "saturation", Query: "min(idle_ratio)", Above: new(0.2)},
			{Name: "on-call", Command: []string{"/usr/local/bin/on-call", "--awake"}},
			{Name: "status-page", URL: "https://status.example.com/ok", At: []policy.Moment{policy.AtStart, policy.AtSoak}},
		},
		AbortAfter: units.Duration(5 * time.Minute),
		Hook:       &policy.Hook{Command: []string{"/usr/local/bin/stop-instance"}, Timeout: units.Duration(90 * time.Second)},
	}
	seven := policy.Default()
	seven.Funnel.Close = 7
	for i, want := range []Service{
		{Service: edge.Service{Name: "chat", Listener: "web", Protocol: edge.HTTP, Domains: []string{"chat.example.com", "*.chat.example.com"}, Prefix: "/socket", Affinity: &edge.Affinity{Cookie: "chat", Session: edge.Session{Query: "sid"}}}, Live: discovery.Green, ConsulService: "chat-v2", Policy: calm},
		{Service: edge.Service{Name: "feed", Listener: "web", Protocol: edge.HTTP, Domains: []string{"chat.example.com"}, Prefix: "/feed", HTTP2: true, StormGuard: 500}, Live: discovery.Blue, ConsulService: "feed", Policy: calm},
		{Service: edge.Service{Name: "rest", Listener: "web6", Protocol: edge.HTTP, Domains: []string{"*"}, Prefix: "/"}, Live: discovery.Blue, ConsulService: "rest", Policy: seven},
		{Service: edge.Service{Name: "broker", Listener: "mqtt", Protocol: edge.TCP}, Live: discovery.Blue, ConsulService: "broker", Policy: policy.Default()},
	} {
		if got := c.Services[i]; !sameService(got, want) {
			t.Errorf("got %+v\nwant %+v", got, want)
		}
	}
	if text := c.Notes.Error(); !strings.Contains(text, "full.yaml:20: listeners[0].tls.certificate: ") || !strings.Contains(text, "every Envoy must have it") {
		t.Errorf("notes: %s", text)
	}
}

// TestFullHasEveryKey keeps the example complete, and with it the decoder.
func TestFullHasEveryKey(t *testing.T) {
	c, err := Load("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for prefix, of := range map[string]reflect.Type{
		"discovery.consul": reflect.TypeFor[Consul](), "xds": reflect.TypeFor[XDS](), "api": reflect.TypeFor[API](), "drain": reflect.TypeFor[Drain](),
		"listeners": reflect.TypeFor[edge.Listener](), "services": reflect.TypeFor[Service](), "services[0].policy": reflect.TypeFor[policy.Policy](),
	} {
		for _, name := range keys(of) {
			given := func(key string) bool { return strings.HasPrefix(key, prefix) && strings.HasSuffix(key, "."+name) }
			if !slices.ContainsFunc(slices.Collect(maps.Keys(c.source.lines)), given) {
				t.Errorf("testdata/full.yaml has no %s of %s", name, prefix)
			}
		}
	}
}

// TestBroken reads like what an operator sees: every problem, with its line.
func TestBroken(t *testing.T) {
	_, err := Load("testdata/broken.yaml")
	if _, ok := errors.AsType[Problems](err); !ok {
		t.Fatalf("got %v (%T)", err, err)
	}
	got := err.Error() + "\n"
	if *update {
		if err := os.WriteFile("testdata/broken.txt", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/broken.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant (rewritten by -update):\n%s", got, want)
	}
}

func TestProblems(t *testing.T) {
	const head = "discovery: {file: instances.yaml}\nlisteners: [{name: web, address: '0.0.0.0:8080'}]\n"
	for name, test := range map[string]struct{ yaml, want string }{
		"empty file":      {"", "x.yaml: discovery: is missing; name file or consul\nx.yaml: listeners: is missing; there must be at least one\nx.yaml: services: is missing; there must be at least one"},
		"syntax":          {head + "services: [", "x.yaml:3: no YAML: "},
		"tab":             {"discovery:\n\tfile: x", "x.yaml:2: no YAML: found character that cannot start any token"},
		"two documents":   {head + "services: [{name: chat}]\n---\na: 1", "x.yaml:4: a second document starts here"},
		"a list":          {"- a", "x.yaml: is a list; it must be a mapping with the keys discovery, "},
		"unknown alias":   {"discovery: *x", "no YAML: unknown anchor 'x' referenced"},
		"no colour":       {head + "services:\n  - name: chat\n    live: Green", `x.yaml:5: services[0].live: "Green" is no colour`},
		"issue's line":    {head + "services:\n - name: chat\n   policy:\n    funnel:\n     close: 0", "x.yaml:7: services[0].policy.funnel.close: close is 0; a step must close at least 1 connection"},
		"short funnel":    {head + "services: [{name: chat, policy: {funnel: 0/3s}}]", "x.yaml:3: services[0].policy.funnel: close is 0;"},
		"text for int":    {head + "services: [{name: chat, policy: {funnel: {close: many}}}]", `services[0].policy.funnel.close: is "many"; it must be a whole number`},
		"odd bool":        {head + "services: [{name: chat, http2: maybe}]", `services[0].http2: is "maybe"; it must be true or false`},
		"TCP over HTTP/2": {head + "services: [{name: chat, protocol: tcp, http2: true}]", "services[0].http2: a TCP service has none"},
		"huge int":        {head + "services: [{name: chat, policy: {funnel: {close: 99999999999999999999}}}]", "services[0].policy.funnel.close: "},
		"map for text":    {head + "services: [{name: {}}]", "services[0].name: is a mapping; it must be text"},
		"no list":         {head + "services: chat", `services: is "chat"; it must be a list`},
		"no listener":     {head + "services: [{name: chat, listener: wbe}]", `there is no listener "wbe"; name one of web`},
		"which listener":  {"discovery: {consul: {}}\nlisteners: [{name: a, address: '0.0.0.0:1'}, {name: b, address: '0.0.0.0:2'}]\nservices: [{name: chat}]", "services[0].listener: is missing; name one of a, b"},
		"idle listener":   {"discovery: {consul: {}}\nlisteners: [{name: a, address: '0.0.0.0:1'}, {name: b, address: '0.0.0.0:2'}]\nservices: [{name: chat, listener: a}]", `listeners[1]: no service uses listener "b"`},
		"same route":      {head + "services: [{name: a, domains: [X.org]}, {name: b, domains: [y.org, x.ORG]}]", `services[1].domains[1]: x.org/ of listener "web" belongs to service a already`},
		"default route":   {head + "services: [{name: a}, {name: b}]", `*/ of listener "web" belongs to service a already`},
		"same in Consul":  {"discovery: {consul: {}}\nlisteners: [{name: web, address: '0.0.0.0:1'}]\nservices: [{name: a}, {name: b, prefix: /b, consul_service: a}]", "services[1].consul_service: a stands at services[0].consul_service already"},
		"dots in Consul":  {"discovery: {consul: {}}\nlisteners: [{name: web, address: '0.0.0.0:1'}]\nservices: [{name: a, consul_service: ..}]", `services[0].consul_service: ".." is no service of Consul's; a path would lose it`},
		"too many":        {"discovery: {consul: {}}\nlisteners: [{name: web, address: '0.0.0.0:1'}]\nservices:\n" + many(151), "x.yaml:3: services: 151 services are more than the 150 that one Consul agent can be watched for"},
		"no Consul":       {head + "services: [{name: a, consul_service: b}]", "services[0].consul_service: has no effect"},
		"two TCP":         {head + "services: [{name: a, protocol: tcp}, {name: b, protocol: tcp}]", `listeners[0]: listener "web" carries TCP service b and others`},
		"odd address":     {"discovery: {consul: {address: nowhere}}\n" + head[34:] + "services: [{name: a}]", `discovery.consul.address: "nowhere" is no address of Consul`},
		"same address":    {head + "xds: {listen: '127.0.0.1:7'}\napi: {listen: '127.0.0.1:7'}\nservices: [{name: a}]", "api.listen: 127.0.0.1:7 is xds.listen too"},
		"open api":        {head + "api: {listen: '0.0.0.0:7'}\nservices: [{name: a}]", "x.yaml:3: api.token_file: is missing; 0.0.0.0:7 can be reached from other machines"},
		"no token":        {head + "drain: {token_file: nowhere}\nservices: [{name: a}]", "drain.token_file: stat nowhere: no such file or directory; it must hold the token"},
		"token folder":    {head + "drain: {token_file: testdata}\nservices: [{name: a}]", "drain.token_file: testdata is not a regular file; it must hold the token"},
		"long token":      {head + "drain: {token_file: testdata/small.yaml}\nservices: [{name: a}]", "drain.token_file: testdata/small.yaml holds more than one word"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse("x.yaml", []byte(test.yaml))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got:\n%v\nwant in it:\n%s", err, test.want)
			}
		})
	}
}

// many are so many services, each with a prefix of its own.
func many(n int) string {
	var out strings.Builder
	for i := range n {
		fmt.Fprintf(&out, "- {name: s%d, prefix: /s%[1]d}\n", i)
	}
	return out.String()
}

func TestLoadNoFile(t *testing.T) {
	if _, err := Load("testdata/nowhere.yaml"); err == nil || err.Error() != "testdata/nowhere.yaml: stat testdata/nowhere.yaml: no such file or directory" {
		t.Errorf("got %v", err)
	}
}

// TestAliasesAreBounded: a small file must not grow without end.
func TestAliasesAreBounded(t *testing.T) {
	domains := "[" + strings.Repeat("a.org, ", 1000) + "]"
	bomb := "services:\n - {name: a, domains: &d " + domains + "}\n" + strings.Repeat(" - {name: b, domains: *d}\n", 1000)
	if _, err := parse("x.yaml", []byte(bomb)); err == nil || !strings.Contains(err.Error(), "is larger than 100000 values") {
		t.Errorf("got %.200v", err)
	}
}
