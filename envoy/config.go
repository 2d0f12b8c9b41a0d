package envoy

import (
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
)

// listeners returns them sorted, each with the address that Envoy binds and the
// protocol that it carries.
func listeners(c edge.Config) []edge.Listener {
	out := slices.Clone(c.Listeners)
	slices.SortStableFunc(out, func(a, b edge.Listener) int { return strings.Compare(a.Name, b.Name) })
	for i, l := range out {
		out[i].Address, out[i].Protocol = l.Bind(), c.Carries(l)
	}
	return out
}

// faults are what cannot be built of a Config and the first reason for it.
func faults(c edge.Config) (listeners map[string]error, services map[discovery.Service]error) {
	listeners, services = map[string]error{}, map[discovery.Service]error{}
	for _, f := range Faults(c) {
		for _, l := range f.Listeners {
			if listeners[l] == nil {
				listeners[l] = f
			}
		}
		for _, s := range f.Services {
			if services[s] == nil {
				services[s] = f
			}
		}
	}
	return listeners, services
}
