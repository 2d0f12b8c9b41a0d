package main

import (
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/sluice-proxy/sluice/cmd/internal/config"
	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy"
	"github.com/sluice-proxy/sluice/envoy/bootstrap"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/xds"
	"github.com/sluice-proxy/sluice/xds/reports"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// publisher is the way from wishes to proxies: it builds what Envoy should hear,
// passes it through the guard, and hands it to the xDS server. Everything that is
// published goes through it. Methods may be called concurrently.
type publisher struct {
	server *xds.Server
	hub    *reports.Hub
	logger *slog.Logger

	mu       sync.Mutex
	config   envoy.Config
	good     rollout.Wishes // the last wish of each service that was published
	set      []resource.Resource
	versions map[resource.Ref]string
	proxies  []xds.Client
	refused  map[discovery.Service]string
}

func newPublisher(c *config.Config, logger *slog.Logger) *publisher {
	return &publisher{
		server: xds.New(xds.Options{
			Logger:         logger,
			WriteOnce:      []string{envoy.ListenerType},
			OnePerResponse: []string{envoy.RouteType, envoy.EndpointType, envoy.ExtensionType},
			Resend:         map[string]string{envoy.ClusterType: envoy.EndpointType},
		}),
		hub:    reports.New(reports.Options{Logger: logger, OwnClusters: []string{bootstrap.Cluster}}),
		logger: logger,
		config: heard(c),
		good:   rollout.Wishes{},
	}
}

// configure makes the next Publish follow c.
func (p *publisher) configure(c *config.Config) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.config = heard(c)
}

// heard is the part of the configuration that Envoy hears of.
func heard(c *config.Config) envoy.Config {
	var out envoy.Config
	for _, l := range c.Listeners {
		listener := envoy.Listener{Name: l.Name, Addr: l.Address}
		if l.TLS != nil {
			listener.TLS = &envoy.TLS{Certificate: l.TLS.Certificate, Key: l.TLS.Key}
		}
		out.Listeners = append(out.Listeners, listener)
	}
	for _, s := range c.Services {
		out.Services = append(out.Services, envoy.Service{
			Name: s.Name, Listener: s.Listener, TCP: s.Protocol == config.TCP,
			Domains: s.Domains, Prefix: s.Prefix, HTTP2: s.HTTP2,
			StormGuard: s.StormGuard,
		})
	}
	return out
}

// Publish tells the proxies. It returns, per service, why its newest wish was not
// published; what was published of it last stays.
func (p *publisher) Publish(wishes rollout.Wishes) map[discovery.Service]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	refused := map[discovery.Service]string{}
	next := maps.Clone(wishes)
	set, ok := p.build(next, refused)
	if ok {
		p.set, p.good = set, next
		p.tell()
	} else {
		for name := range wishes {
			if refused[name] == "" {
				refused[name] = refused[shared]
			}
		}
		delete(refused, shared)
	}
	for name, why := range refused {
		if p.refused[name] != why {
			p.logger.Error("not published", "service", name, "reason", why)
		}
	}
	p.refused = refused
	return refused
}

// shared is whose fault a refusal of something shared by services is.
const shared discovery.Service = ""

// build builds what the guard accepts: a service whose wish is refused keeps its
// last good one. wishes is changed to what the set follows. It fails only when
// something that services share is refused.
func (p *publisher) build(wishes rollout.Wishes, refused map[discovery.Service]string) ([]resource.Resource, bool) {
	for {
		set, bad := envoy.Build(p.config, wishes)
		for name, err := range bad {
			refused[name] = err.Error()
		}
		if p.fallBack(wishes, slices.Collect(maps.Keys(bad))) {
			continue
		}
		refusals := envoy.Safe(p.set, set, p.may(wishes))
		if len(refusals) == 0 {
			return set, true
		}
		var whose []discovery.Service
		for _, r := range refusals {
			refused[r.Service] = r.Text
			if r.Service != shared {
				whose = append(whose, r.Service)
			}
		}
		if !p.fallBack(wishes, whose) {
			refused[shared] = refusals[0].Text
			return nil, false
		}
	}
}

// fallBack puts the last good wish of each named service in place of its newest
// and reports whether that changed anything.
func (p *publisher) fallBack(wishes rollout.Wishes, names []discovery.Service) bool {
	changed := false
	for _, name := range names {
		good, ok := p.good[name]
		wish, wished := wishes[name]
		if ok && (!wished || !reflect.DeepEqual(wish, good)) {
			wishes[name] = good
			changed = true
		}
	}
	return changed
}

// may says what is proven: a member that was forgotten holds nothing, and a
// service whose last member was forgotten neither.
func (p *publisher) may(wishes rollout.Wishes) envoy.May {
	remove := map[discovery.Service]bool{}
	members := map[string]map[netip.AddrPort]bool{}
	for name, wish := range wishes {
		remove[name] = wish.Gone
		for c, endpoints := range wish.Endpoints {
			addrs := map[netip.AddrPort]bool{}
			for _, e := range endpoints {
				addrs[netip.AddrPortFrom(e.Addr.Addr().Unmap(), e.Addr.Port())] = true
			}
			members[envoy.ClusterName(name, c)] = addrs
		}
	}
	return envoy.May{
		Remove: remove,
		Holds: func(cluster string, addr netip.AddrPort) bool {
			addrs, known := members[cluster]
			return !known || addrs[addr]
		},
	}
}

// tell hands the set to the xDS server.
func (p *publisher) tell() {
	for _, r := range p.set {
		if r.Type == envoy.ClusterType {
			p.hub.Follow(r.Name)
		}
	}
	if err := p.server.Publish(p.set); err != nil {
		panic(err) // the guard has validated every message, so it can be encoded
	}
	p.versions = p.server.Versions()
}

// refresh takes over what the proxies have acknowledged since.
func (p *publisher) refresh() {
	proxies := p.server.Clients()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.proxies = proxies
}

// Proxies lists the proxies as seen from one service: confirmed is who holds
// exactly what was published for it last.
func (p *publisher) Proxies(name discovery.Service) []rollout.Proxy {
	p.mu.Lock()
	defer p.mu.Unlock()
	needs, concerned := p.needs(name)
	out := make([]rollout.Proxy, 0, len(p.proxies))
	for _, x := range p.proxies {
		seen := rollout.Proxy{
			Node: x.Node, Connected: x.Connected, Lost: x.Lost,
			Confirmed: x.Connected && len(needs) > 0 && x.Holds(needs),
		}
		for _, n := range x.Nacks {
			for _, name := range n.Names {
				if concerned[resource.Ref{Type: n.Type, Name: name}] {
					seen.Nack = n.Message
				}
			}
		}
		out = append(out, seen)
	}
	return out
}

// needs is what a proxy has to hold to send the service's connections where they
// should go, and whose refusals concern the service.
func (p *publisher) needs(name discovery.Service) (map[resource.Ref]string, map[resource.Ref]bool) {
	i := slices.IndexFunc(p.config.Services, func(s envoy.Service) bool { return s.Name == name })
	if i < 0 {
		return nil, nil
	}
	needs, concerned := map[resource.Ref]string{}, map[resource.Ref]bool{
		{Type: envoy.ListenerType, Name: p.config.Services[i].Listener}: true,
	}
	for _, c := range discovery.Colours {
		concerned[resource.Ref{Type: envoy.ClusterType, Name: envoy.ClusterName(name, c)}] = true
	}
	for _, ref := range envoy.Needs(p.config.Services[i]) {
		version, published := p.versions[ref]
		if !published {
			return nil, concerned
		}
		needs[ref], concerned[ref] = version, true
	}
	return needs, concerned
}

// list is every proxy in the operator's words.
func (p *publisher) list() []api.Proxy {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]api.Proxy, 0, len(p.proxies))
	for _, x := range p.proxies {
		out = append(out, p.word(x))
	}
	return out
}

func (p *publisher) word(x xds.Client) api.Proxy {
	out := api.Proxy{
		Node: x.Node, Connected: x.Connected, Since: x.Since, Address: x.Addr, UserAgent: x.UserAgent,
		NackCount: x.NackCount, Holds: []api.Holding{}, Nacks: []api.Rejection{}, Withheld: []api.Withheld{},
	}
	if !x.Connected {
		out.Since = x.Lost
	}
	for _, t := range envoy.Types {
		held := 0
		for ref := range x.Acknowledged {
			if ref.Type == t {
				held++
			}
		}
		if held > 0 {
			out.Holds = append(out.Holds, api.Holding{Type: short(t), Resources: held})
		}
	}
	for _, n := range x.Nacks {
		out.Nacks = append(out.Nacks, api.Rejection{Type: short(n.Type), Names: n.Names, Message: n.Message, At: n.At})
	}
	for _, w := range x.Withheld {
		out.Withheld = append(out.Withheld, api.Withheld{Ref: w.Ref.String(), Why: w.Why})
	}
	return out
}

// short is the last word of a type URL.
func short(typeURL string) string { return typeURL[strings.LastIndexByte(typeURL, '.')+1:] }
