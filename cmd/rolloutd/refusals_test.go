package main

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/units"
	"github.com/sluice-proxy/sluice/xds"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// A refusal concerns the services that need what was refused, of whatever type it is.
func TestWhomARefusalConcerns(t *testing.T) {
	p := newPublisher(mustLoad(t, `listeners:
  - {name: web, address: 127.0.0.1:8080, tls: {certificate: /c, key: /k}}
  - {name: raw, address: 127.0.0.1:8081}
services:
  - {name: chat, listener: web, domains: [chat.example.com]}
  - {name: other, listener: web, domains: [other.example.com]}
  - {name: line, listener: raw, protocol: tcp}
`), slog.New(slog.DiscardHandler))
	wish := evenly(units.Whole, "10.0.0.1:80")
	if refused := p.Publish(desired.Wishes{"chat": wish, "other": wish, "line": wish}); len(refused) > 0 {
		t.Fatal(refused)
	}
	for ref, want := range map[resource.Ref]string{
		{Type: envoy.ClusterType, Name: "chat-blue"}:            "chat",
		{Type: envoy.EndpointType, Name: "other-green"}:         "other",
		{Type: envoy.SecretType, Name: "web"}:                   "chat other",
		{Type: envoy.ListenerType, Name: "web"}:                 "chat other",
		{Type: envoy.RouteType, Name: "web"}:                    "chat other",
		{Type: envoy.ExtensionType, Name: "web/storm"}:          "chat other",
		{Type: envoy.ExtensionType, Name: "raw"}:                "line",
		{Type: envoy.ListenerType, Name: "raw"}:                 "line",
		{Type: envoy.RuntimeType, Name: envoy.RuntimeName}:      "chat other line",
		{Type: envoy.ListenerType, Name: "somebody else's"}:     "",
		{Type: envoy.ClusterType, Name: "never-published-blue"}: "",
	} {
		var held []string
		for _, s := range []discovery.Service{"chat", "other", "line"} {
			x := xds.Client{Nacks: []xds.Nack{{Type: ref.Type, Names: []string{"x", ref.Name}, Message: "no"}}}
			if why := p.refusal(s, x); strings.Contains(why, ref.Name) {
				held = append(held, string(s))
			}
		}
		if got := strings.Join(held, " "); got != want {
			t.Errorf("%s concerns %q, want %q", ref, got, want)
		}
	}
}
