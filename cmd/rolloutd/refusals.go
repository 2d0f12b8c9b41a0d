package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy"
	"github.com/sluice-proxy/sluice/xds"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// refusal says what of that which concerns a service the proxy refuses, and why; empty: it
// refuses nothing of it. p.mu is held.
func (p *publisher) refusal(name discovery.Service, x xds.Client) string {
	const most = 3
	var all []string
	for _, n := range x.Nacks {
		if !slices.ContainsFunc(n.Names, func(of string) bool { return p.concerns(name, resource.Ref{Type: n.Type, Name: of}) }) {
			continue
		}
		if len(all) == most {
			all = append(all, "and more")
			break
		}
		all = append(all, fmt.Sprintf("%s %s: %s", resource.Kind(n.Type), strings.Join(n.Names, ", "), n.Message))
	}
	return strings.Join(all, "; ")
}

// concerns reports whether a resource is the service's, its listener's, or everybody's,
// whatever its type is: without any of these its clients may not get through. p.mu is held.
func (p *publisher) concerns(name discovery.Service, ref resource.Ref) bool {
	owner, published := p.owners[ref]
	s := p.service(name)
	switch {
	case s == nil || !published:
		return false
	case owner != "":
		return owner == name
	}
	l := envoy.ListenerOf(ref)
	return l == "" || l == s.Listener
}
