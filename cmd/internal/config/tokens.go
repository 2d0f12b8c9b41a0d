package config

import "github.com/sluice-proxy/sluice/internal/secret"

// Token is a token that a configuration names the file of.
type Token struct {
	Key  string // such as "api.token_file"
	File string // empty: there is none
	// Held is where the configuration keeps what the file held when it was loaded.
	Held *string
}

// Read is what the file holds now.
func (t Token) Read() (string, error) { return secret.File(t.File) }

// Tokens lists every token that can be configured.
func (c *Config) Tokens() []Token {
	all := []Token{
		{"api.token_file", c.API.TokenFile, &c.API.Token},
		{"drain.token_file", c.Drain.TokenFile, &c.Drain.Token},
		{"prometheus.token_file", c.Prometheus.TokenFile, &c.Prometheus.Token},
	}
	if d := c.Discovery.Consul; d != nil {
		all = append(all, Token{"discovery.consul.token_file", d.TokenFile, &d.Token})
	}
	if s := c.State.Consul; s != nil {
		all = append(all, Token{"state.consul.token_file", s.TokenFile, &s.Token})
	}
	return all
}

// places is the configuration without what its token files hold: a token that was
// replaced is shown at the same place.
func (c *Config) places() *Config {
	p := *c
	if p.Discovery.Consul != nil {
		p.Discovery.Consul = new(*p.Discovery.Consul)
	}
	if p.State.Consul != nil {
		p.State.Consul = new(*p.State.Consul)
	}
	for _, t := range p.Tokens() {
		*t.Held = ""
	}
	return &p
}
