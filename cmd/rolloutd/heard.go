package main

import (
	"maps"
	"reflect"
	"slices"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy"
	"github.com/sluice-proxy/sluice/xds"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// refresh takes over what the proxies have acknowledged, refused and asked for since, and
// returns the services that it may concern.
func (p *publisher) refresh() []discovery.Service {
	proxies := p.server.Clients()
	p.mu.Lock()
	defer p.mu.Unlock()
	was := map[string]xds.Client{}
	for _, x := range p.proxies {
		was[x.Node] = x
	}
	refs := map[resource.Ref]bool{}
	known := len(proxies) == len(was)
	for _, x := range proxies {
		old, again := was[x.Node]
		known = known && again && differing(old, x, refs)
	}
	p.proxies = proxies
	if !known {
		return slices.Collect(maps.Keys(p.carried()))
	}
	return p.concerned(refs)
}

// differing adds to refs the resources about which the proxy says another thing than
// before; false: it may be another thing about any.
func differing(was, is xds.Client, refs map[resource.Ref]bool) bool {
	if was.Connected != is.Connected || was.Contested != is.Contested || was.Addr != is.Addr || was.UserAgent != is.UserAgent ||
		!was.Since.Equal(is.Since) || !was.Lost.Equal(is.Lost) || !maps.Equal(was.Everything, is.Everything) {
		return false
	}
	for _, pair := range [][2]xds.Client{{was, is}, {is, was}} {
		for ref, version := range pair[0].Acknowledged {
			if other, ok := pair[1].Acknowledged[ref]; !ok || other != version {
				refs[ref] = true
			}
		}
		for ref := range pair[0].Asked {
			if !pair[1].Asked[ref] {
				refs[ref] = true
			}
		}
	}
	if !reflect.DeepEqual(was.Nacks, is.Nacks) {
		for _, n := range slices.Concat(was.Nacks, is.Nacks) {
			for _, name := range n.Names {
				refs[resource.Ref{Type: n.Type, Name: name}] = true
			}
		}
	}
	return true
}

// concerned lists the services that a resource of these is of: its own, or all that share
// its listener. One that is not known may be anybody's. p.mu is held.
func (p *publisher) concerned(refs map[resource.Ref]bool) []discovery.Service {
	out, listeners := map[discovery.Service]bool{}, map[string]bool{}
	for ref := range refs {
		switch owner, l := p.owners[ref], envoy.ListenerOf(ref); {
		case owner != "":
			out[owner] = true
		case l != "":
			listeners[l] = true
		default:
			return slices.Collect(maps.Keys(p.carried()))
		}
	}
	for _, s := range p.config.Services {
		if listeners[s.Listener] {
			out[s.Name] = true
		}
	}
	return slices.Collect(maps.Keys(out))
}
