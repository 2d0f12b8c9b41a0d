package config

import (
	"strings"
	"testing"
)

const running = `discovery: {consul: {}}
listeners:
  - {name: web, address: 0.0.0.0:8080}
  - {name: mqtt, address: 0.0.0.0:1883}
services:
  - {name: chat, listener: web}
  - {name: feed, listener: web, prefix: /feed}
  - {name: broker, listener: mqtt, protocol: tcp}
`

func TestChanged(t *testing.T) {
	for name, test := range map[string]struct {
		replace, by     string
		change, refused string // one of them, or none: the same
	}{
		"nothing":             {},
		"a comment":           {replace: "services:", by: "services: # all of them"},
		"policy":              {replace: "name: chat,", by: "name: chat, policy: {funnel: 5/1s},", change: "service chat has a new policy, for its next rollout"},
		"routes":              {replace: "prefix: /feed", by: "prefix: /feeds", change: "service feed has new routes"},
		"http2":               {replace: "name: chat,", by: "name: chat, http2: true,", change: "service chat has http2 true"},
		"storm guard":         {replace: "name: broker,", by: "name: broker, storm_guard: 50/s,", change: "service broker has a storm guard of 50/s"},
		"live":                {replace: "name: chat,", by: "name: chat, live: green,"},
		"new service":         {replace: "services:", by: "services:\n  - {name: new, listener: web, prefix: /new}", change: "service new is new"},
		"service leaves":      {replace: "  - {name: feed, listener: web, prefix: /feed}\n", by: "", change: "service feed retires: it gets no new connections"},
		"new listener":        {replace: "services:", by: "  - {name: more, address: 0.0.0.0:81}\nservices:\n  - {name: new, listener: more}", change: "listener more is new at 0.0.0.0:81\nservice new is new"},
		"listener moves":      {replace: "0.0.0.0:8080", by: "0.0.0.0:8081", refused: "x.yaml:3: listeners[0]: listener web has another address, which would end its connections"},
		"listener gets TLS":   {replace: "0.0.0.0:8080}", by: "0.0.0.0:8080, tls: {certificate: /c, key: /k}}", refused: "listener web has another tls, which would end its connections"},
		"trusted hops, a log": {replace: "0.0.0.0:8080}", by: "0.0.0.0:8080, trusted_hops: 1, access_log: {file: /dev/stdout}}", refused: "x.yaml:3: listeners[0]: listener web has another trusted_hops and access_log, which would end its connections; put it back and add another listener, or restart rolloutd: each Envoy keeps"},
		"PROXY protocol":      {replace: "0.0.0.0:1883}", by: "0.0.0.0:1883, proxy_protocol: required}", refused: "listener mqtt has another proxy_protocol"},
		"listener leaves": {replace: "mqtt", by: "mqtt2",
			refused: "x.yaml:2: listeners: listener mqtt was removed, which would end its connections"},
		"listener's kind": {replace: "{name: broker, listener: mqtt, protocol: tcp}", by: "{name: tube, listener: mqtt}",
			refused: "x.yaml:4: listeners[1]: listener mqtt carried TCP service broker and would carry HTTP services"},
		"listener's TCP service": {replace: "name: broker", by: "name: broker2", refused: "listener mqtt carried TCP service broker and would carry TCP service broker2"},
		"protocol":               {replace: "protocol: tcp", by: "protocol: http", refused: "x.yaml:8: services[2].protocol: changed from tcp to http"},
		"name in Consul":         {replace: "name: chat,", by: "name: chat, consul_service: talk,", refused: "x.yaml:6: services[0].consul_service: changed from chat to talk"},
		"Consul's address":       {replace: "consul: {}", by: "consul: {address: 'localhost:8501'}", refused: "x.yaml:1: discovery: changed, but instances would be taken for departed ones; restart rolloutd for that"},
		"kind of discovery":      {replace: "{consul: {}}", by: "{file: instances.yaml}", refused: "x.yaml:1: discovery: changed"},
		"state":                  {replace: "listeners:", by: "state: {file: elsewhere}\nlisteners:", refused: "x.yaml:2: state: changed, but a rollout would lose its memory; restart rolloutd for that"},
		"xds":                    {replace: "listeners:", by: "xds: {listen: '127.0.0.1:1'}\nlisteners:", refused: "xds: changed, but the Envoys are connected to it; restart"},
		"api":                    {replace: "listeners:", by: "api: {listen: '127.0.0.1:1'}\nlisteners:", refused: "api: changed, but it is being served; restart"},
		"replicas":               {replace: "listeners:", by: "replicas: ['http://10.0.0.3:18001']\nlisteners:", refused: "replicas: changed, but they are being asked; restart"},
		"drain token":            {replace: "listeners:", by: "drain: {token_file: testdata/drain.token}\nlisteners:", refused: "drain: changed, but orders are being sent with it; restart"},
	} {
		t.Run(name, func(t *testing.T) {
			text := running
			if test.replace != "" {
				text = strings.ReplaceAll(running, test.replace, test.by)
			}
			changes, refused := parsed(t, running).Changed(parsed(t, text))
			if got := strings.Join(changes, "\n"); test.refused == "" && got != test.change {
				t.Errorf("changes: got %q; want %q", got, test.change)
			}
			if test.refused == "" && len(refused) > 0 || !strings.Contains(refused.Error(), test.refused) {
				t.Errorf("refused: got %q; want %q", refused, test.refused)
			}
		})
	}
}

func parsed(t *testing.T, text string) *Config {
	t.Helper()
	c, err := parse("x.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Certificates stand in no Listener: they can be replaced and added.
func TestCertificatesChange(t *testing.T) {
	secure := strings.ReplaceAll(running, "0.0.0.0:8080}", "0.0.0.0:8080, tls: {certificate: /c, key: /k}}")
	more := strings.ReplaceAll(secure, "key: /k", "key: /k2, more: [{certificate: /d, key: /l}]")
	changes, refused := parsed(t, secure).Changed(parsed(t, more))
	if len(refused) > 0 || strings.Join(changes, "\n") != "listener web has other certificates" {
		t.Errorf("changes %q, refused %q", changes, refused)
	}
	if _, refused := parsed(t, secure).Changed(parsed(t, strings.ReplaceAll(more, "more:", "client_ca: /ca, more:"))); !strings.Contains(refused.Error(), "listener web has another tls.client_ca") {
		t.Errorf("refused %q", refused)
	}
}
