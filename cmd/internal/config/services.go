package config

import (
	"fmt"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/discovery/consul/rules"
	"github.com/sluice-proxy/sluice/envoy/edge"
)

// checkServices looks at what Envoy does not hear of; the rest is checkEdge's.
func (r *reading) checkServices(c *Config) {
	if err := rules.CheckWatches(len(c.Services)); err != nil && c.Discovery.Consul != nil {
		r.refuse("services", "%v", err)
	}
	inConsul := map[string]string{}
	names := map[discovery.Service]bool{}
	for i, s := range c.Services {
		key := fmt.Sprintf("services[%d]", i)
		if !names[s.Name] {
			r.checkUnique(key+".consul_service", s.ConsulService, inConsul)
		}
		names[s.Name] = true
		if err := rules.CheckName(s.ConsulService); err != nil {
			r.refuse(key+".consul_service", "%v", err)
		}
		if c.Discovery.Consul == nil && s.ConsulService != string(s.Name) {
			r.refuse(key+".consul_service", "has no effect, because the instances come from a file; remove it")
		}
		if _, err := discovery.ParseColour(string(s.Live)); err != nil {
			r.refuse(key+".live", "%v", err)
		}
		r.checkPolicy(key+".policy", s.Policy)
		for _, name := range []string{"domains", "prefix", "http2"} {
			if s.Protocol == edge.TCP && r.given(key+"."+name) {
				r.refuse(key+"."+name, "a TCP service has none; remove it")
			}
		}
	}
}
