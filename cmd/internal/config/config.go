// Package config reads rolloutd's YAML configuration: strictly, with defaults,
// checked without touching the network, and with all of its errors at once.
package config

import (
	"net/netip"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/policy"
)

// Config is one configuration that passed every check. Relative paths in the
// file are relative to the file's folder; here they are joined to it already.
// Never changed once loaded.
type Config struct {
	// Discovery says where the instances are registered. Required.
	Discovery Discovery `yaml:"discovery"`
	// State says where the rollouts are remembered. Default: the folder
	// sluice-state next to the configuration.
	State State `yaml:"state"`
	// XDS is what the Envoys connect to.
	XDS XDS `yaml:"xds"`
	// API is what rolloutctl and Prometheus talk to.
	API API `yaml:"api"`
	// Replicas are the other rolloutds' APIs, as URLs. The streams of one Envoy may
	// end at any of them, so each asks the others each second what Envoys report to
	// them. They are shown API.Token. Default: none.
	Replicas []string `yaml:"replicas"`
	// Drain is how rolloutd speaks to the instances' drain endpoints.
	Drain Drain `yaml:"drain"`
	// Prometheus is what gates with a query ask. Only they need it.
	Prometheus Prometheus `yaml:"prometheus"`
	// Listeners are the addresses at which Envoy accepts connections. At least
	// one; what a listener is cannot change while it exists.
	Listeners []edge.Listener `yaml:"listeners"`
	// Leaving are the node ids of the Envoys whose listeners answer health with 503.
	Leaving []string `yaml:"leaving"`
	// Services are what is served there. At least one.
	Services []Service `yaml:"services"`

	// Notes are worth an operator's look but refuse nothing.
	Notes Problems `yaml:"-"`

	source source
}

// Discovery has exactly one of its two fields set.
type Discovery struct {
	// File is a YAML file of instances, reread when it changes.
	File string `yaml:"file"`
	// Consul is the agent that is watched.
	Consul *Consul `yaml:"consul"`
}

// Consul is an agent and how it is read.
type Consul struct {
	// Address is host:port, or an http:// or https:// URL. Default
	// CONSUL_HTTP_ADDR, or 127.0.0.1:8500.
	Address string `yaml:"address"`
	// TokenFile holds the ACL token: it needs service:read and node:read on the
	// services. Default: no token.
	TokenFile string `yaml:"token_file"`
	// Token is what TokenFile held when it was loaded.
	Token string `yaml:"-"`
	// Datacenter defaults to the agent's own.
	Datacenter string `yaml:"datacenter"`
	// Tags are the tags that give an instance its colour.
	Tags Tags `yaml:"tags"`
}

// Tags names the tag of each colour. Default: blue and green.
type Tags struct {
	Blue  string `yaml:"blue"`
	Green string `yaml:"green"`
}

// State has exactly one of its two fields set.
type State struct {
	// File is a folder that one rolloutd holds exclusively; it is made if needed.
	File string `yaml:"file"`
	// Consul keeps the state in Consul's KV store.
	Consul *StateConsul `yaml:"consul"`
}

// StateConsul is a prefix in Consul's KV store. Address, TokenFile and
// Datacenter default to those of discovery.consul.
type StateConsul struct {
	Address string `yaml:"address"`
	// TokenFile holds the ACL token: it needs key_prefix write on Prefix.
	TokenFile string `yaml:"token_file"`
	// Token is what TokenFile held when it was loaded.
	Token      string `yaml:"-"`
	Datacenter string `yaml:"datacenter"`
	// Prefix of all keys. Default sluice.
	Prefix string `yaml:"prefix"`
}

// XDS is the address that Envoys take their configuration from.
type XDS struct {
	// Listen is IP:port. Default 127.0.0.1:18000.
	Listen netip.AddrPort `yaml:"listen"`
}

// API is the operator's address: /v1/…, /metrics, /healthz and /readyz.
type API struct {
	// Listen is IP:port. Default 127.0.0.1:18001. Any but a loopback address
	// demands TokenFile.
	Listen netip.AddrPort `yaml:"listen"`
	// TokenFile holds the bearer token that a request must show. Default: none.
	TokenFile string `yaml:"token_file"`
	// Token is what TokenFile held when it was loaded.
	Token string `yaml:"-"`
}

// Drain is the control plane's side of the drain contract.
type Drain struct {
	// TokenFile holds the bearer token that rolloutd shows to the instances'
	// drain endpoints. Default: none.
	TokenFile string `yaml:"token_file"`
	// Token is what TokenFile held when it was loaded.
	Token string `yaml:"-"`
}

// Prometheus answers the queries of gates.
type Prometheus struct {
	// Address is an http:// or https:// URL, with the path in front of /api/v1 if
	// there is one. Empty: there is none.
	Address string `yaml:"address"`
	// TokenFile holds the bearer token that is shown to it. Default: none.
	TokenFile string `yaml:"token_file"`
	// Token is what TokenFile held when it was loaded.
	Token string `yaml:"-"`
}

// Service is one application with its two colours. What its clients meet has its
// defaults here: the only listener there is, http, every domain, and the root.
type Service struct {
	edge.Service
	// Live is the colour that is live when the service is seen for the first
	// time; afterwards the stored state knows. Default blue.
	Live discovery.Colour `yaml:"live"`
	// ConsulService is its name in Consul. Default: Name.
	ConsulService string `yaml:"consul_service"`
	// Policy is how it is promoted. Left-out keys have policy.Default.
	// funnel may also be written as 500/3s.
	Policy policy.Policy `yaml:"policy"`
}

// Edge is the part of the configuration that Envoy hears of.
func (c *Config) Edge() edge.Config {
	out := edge.Config{Listeners: c.Listeners, Leaving: c.Leaving}
	for _, s := range c.Services {
		out.Services = append(out.Services, s.Service)
	}
	return out
}

// Problem says where in the file a fault of Edge stands.
func (c *Config) Problem(f edge.Fault) Problem { return c.At(f.Key, f.Text) }

// At is a problem of the value at a key, with its line.
func (c *Config) At(key, text string) Problem { return c.source.problem(key, text) }
