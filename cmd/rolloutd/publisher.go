package main

import (
	"cmp"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/cmd/internal/config"
	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy"
	"github.com/sluice-proxy/sluice/envoy/bootstrap"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/xds"
	"github.com/sluice-proxy/sluice/xds/process"
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
	config   edge.Config                         // what can be built of the newest configuration, else of the one before
	services map[discovery.Service]*edge.Service // of config, by name
	faulty   map[discovery.Service]string        // why a service's newest configuration is not in config
	good     desired.Wishes                      // the last wish of each service that was published
	set      []resource.Resource
	owners   map[resource.Ref]discovery.Service // of what is published; empty: several share it
	builder  envoy.Builder
	routings routings
	proxies  []xds.Client
	refused  map[discovery.Service]string
}

func newPublisher(c *config.Config, logger *slog.Logger) *publisher {
	processes := process.New()
	p := &publisher{
		server: xds.New(xds.Options{
			Logger:         logger,
			WriteOnce:      []string{envoy.ListenerType},
			OnePerResponse: []string{envoy.RouteType, envoy.EndpointType, envoy.ExtensionType},
			Resend:         map[string]string{envoy.ClusterType: envoy.EndpointType},
			Vary:           map[string]func([]byte, int) []byte{envoy.SecretType: envoy.Respell},
			Extensions:     []string{envoy.DoorType},
			Processes:      processes,
		}),
		hub:    reports.New(reports.Options{Logger: logger, OwnClusters: []string{bootstrap.Cluster}, Processes: processes}),
		logger: logger,
		good:   desired.Wishes{},
	}
	p.configure(c)
	return p
}

// configure makes the next Publish follow c. A service that cannot be built as c
// wants it stays as it was configured before, and Publish says why.
func (p *publisher) configure(c *config.Config) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next, faults := edge.Settle(c.Edge(), p.config)
	p.config, p.faulty = next, map[discovery.Service]string{}
	p.services = make(map[discovery.Service]*edge.Service, len(next.Services))
	for i := range next.Services {
		p.services[next.Services[i].Name] = &next.Services[i]
	}
	for name, f := range faults {
		p.faulty[name] = c.Problem(f).String()
	}
	for _, s := range next.Services { // what proxies hold from before is evidence
		p.hub.Follow(envoy.ClusterName(s.Name, discovery.Blue), envoy.ClusterName(s.Name, discovery.Green))
	}
}

// Publish tells the proxies. It returns, per service, why not all that was meant
// for it was published: its newest wish, or the configuration that it has to
// follow. What was published of it last stays. The first reason counts.
func (p *publisher) Publish(wishes desired.Wishes) map[discovery.Service]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := draft{config: p.config, wishes: maps.Clone(wishes), refused: maps.Clone(p.faulty)}
	for name := range p.faulty {
		if _, ok := p.good[name]; !ok && p.service(name) == nil {
			delete(d.wishes, name) // nothing of it can be built yet
		}
	}
	set, shared := p.build(d)
	if shared == "" {
		was := p.good
		p.good = d.wishes
		p.tell(set)
		p.routings.turn(was, p.good, p.set, p.server.Version)
	} else {
		for name := range wishes {
			d.refuse(name, shared)
		}
	}
	for name, why := range d.refused {
		if p.refused[name] != why {
			p.logger.Error("not published", "service", name, "reason", why)
		}
	}
	p.refused = d.refused
	return d.refused
}

// draft is what shall be published: the newest wishes, but for those that were
// refused.
type draft struct {
	config  edge.Config
	wishes  desired.Wishes
	refused map[discovery.Service]string
}

// refuse keeps the first reason: what follows from it hides it from no one.
func (d draft) refuse(name discovery.Service, why string) {
	if _, known := d.refused[name]; !known {
		d.refused[name] = why
	}
}

// build builds what the guard accepts: a service whose wish is refused keeps its
// last good one, or is left out if it has none. It fails only when something that
// services share is refused; shared is why.
func (p *publisher) build(d draft) (set []resource.Resource, shared string) {
	for {
		set, bad := p.builder.Build(d.config, d.wishes)
		for name, err := range bad {
			d.refuse(name, err.Error())
		}
		if p.fallBack(d.wishes, slices.Collect(maps.Keys(bad))) {
			continue
		}
		refusals := envoy.Safe(p.set, set, p.may(d.wishes))
		if len(refusals) == 0 {
			return set, ""
		}
		var whose []discovery.Service
		for _, r := range refusals {
			if r.Service != "" {
				d.refuse(r.Service, r.Text)
				whose = append(whose, r.Service)
			} else if shared == "" {
				shared = r.Text
			}
		}
		if !p.fallBack(d.wishes, whose) {
			return nil, cmp.Or(shared, refusals[0].Text)
		}
		shared = ""
	}
}

// fallBack puts the last good wish of each named service in place of its newest,
// or takes the newest away, and reports whether that changed anything.
func (p *publisher) fallBack(wishes desired.Wishes, names []discovery.Service) bool {
	changed := false
	for _, name := range names {
		good, ok := p.good[name]
		wish, wished := wishes[name]
		switch {
		case ok && (!wished || !wish.Equal(good)):
			wishes[name] = good
			changed = true
		case !ok && wished:
			delete(wishes, name)
			changed = true
		}
	}
	return changed
}

// may says what is proven: a member that was forgotten holds nothing, and a
// service whose last member was forgotten neither.
func (p *publisher) may(wishes desired.Wishes) envoy.May {
	remove := map[discovery.Service]bool{}
	clusters := sync.OnceValue(func() map[string][]desired.Endpoint {
		all := map[string][]desired.Endpoint{}
		for name, wish := range wishes {
			for c, endpoints := range wish.Endpoints {
				all[envoy.ClusterName(name, c)] = endpoints
			}
		}
		return all
	})
	for name, wish := range wishes {
		if wish.Gone {
			remove[name] = true
		}
	}
	return envoy.May{
		Remove: remove,
		Holds: func(cluster string, addr netip.AddrPort) bool {
			endpoints, known := clusters()[cluster]
			return !known || slices.ContainsFunc(endpoints, func(e desired.Endpoint) bool {
				return netip.AddrPortFrom(e.Addr.Addr().Unmap(), e.Addr.Port()) == addr
			})
		},
	}
}

// tell hands the set to the xDS server.
func (p *publisher) tell(set []resource.Resource) {
	known := slices.EqualFunc(p.set, set, func(was, now resource.Resource) bool { return was.Ref == now.Ref && was.Owner == now.Owner })
	if p.set = set; !known {
		var clusters []string
		p.owners = make(map[resource.Ref]discovery.Service, len(set))
		for _, r := range set {
			p.owners[r.Ref] = discovery.Service(r.Owner)
			if r.Type == envoy.ClusterType {
				clusters = append(clusters, r.Name)
			}
		}
		p.hub.Follow(clusters...)
	}
	if err := p.server.Publish(set); err != nil {
		panic(err) // the guard has validated every message, so it can be encoded
	}
}

// sayWithin is how long an xDS client that has just connected is given to say what it
// asks for, before it is taken for one that routes nothing.
const sayWithin = 2 * time.Second

// Proxies lists the proxies as seen from one service: confirmed is who holds
// exactly what was published for it last. One that has just connected and not said
// what it asks for is not there yet.
func (p *publisher) Proxies(name discovery.Service) []observed.Proxy {
	p.mu.Lock()
	defer p.mu.Unlock()
	needs := p.needs(name)
	paths, now := p.paths(name), time.Now()
	service := p.service(name)
	var ended map[string]bool
	if slices.ContainsFunc(p.proxies, func(x xds.Client) bool { return !x.Connected }) {
		ended = p.hub.Ended()
	}
	out := make([]observed.Proxy, 0, len(p.proxies))
	for _, x := range p.proxies {
		routes := routes(x, paths)
		if !routes && x.Connected && now.Sub(x.Since) < sayWithin {
			continue
		}
		seen := observed.Proxy{
			Node: x.Node, Addr: x.Addr.Addr().Unmap(), Connected: x.Connected, Lost: x.Lost, Ended: !x.Connected && ended[x.Node], Routes: routes,
			Confirmed: routes && !x.Contested && x.Connected && len(needs) > 0 && x.Holds(needs),
			Routed:    routes && !x.Contested && service != nil && p.routings.reached(x, *service, p.good[name]),
			Keeps:     p.keeps(name, x),
		}
		seen.Nack = p.refusal(name, x)
		out = append(out, seen)
	}
	return out
}

// keeps reports whether the proxy holds clusters or endpoints of a service of which this
// process has published nothing. p.mu is held.
func (p *publisher) keeps(name discovery.Service, x xds.Client) bool {
	if good, published := p.good[name]; published && good.Unsettled == "" {
		return false
	}
	for _, c := range discovery.Colours {
		_, cluster := x.Acknowledged[resource.Ref{Type: envoy.ClusterType, Name: envoy.ClusterName(name, c)}]
		if endpoints := (resource.Ref{Type: envoy.EndpointType, Name: envoy.ClusterName(name, c)}); cluster || x.Wants(endpoints) {
			return true
		}
	}
	return false
}

// paths is what brings connections to the service's colours: its clusters, then its routes,
// then its listener, which alone brings nobody anywhere.
func (p *publisher) paths(name discovery.Service) []resource.Ref {
	s := p.service(name)
	if s == nil {
		return nil
	}
	kind := envoy.RouteType
	if s.Protocol == edge.TCP {
		kind = envoy.ExtensionType
	}
	return []resource.Ref{
		{Type: envoy.ClusterType, Name: envoy.ClusterName(name, discovery.Blue)},
		{Type: envoy.ClusterType, Name: envoy.ClusterName(name, discovery.Green)},
		{Type: kind, Name: s.Listener},
		{Type: envoy.ListenerType, Name: s.Listener},
	}
}

// routes reports whether the client asks for, or holds, any of the paths. A listener that
// it refused is none: clients that are no Envoy ask for it by its name.
func routes(x xds.Client, paths []resource.Ref) bool {
	for _, ref := range paths {
		if !x.Wants(ref) {
			continue
		}
		refused := func(n xds.Nack) bool { return n.Type == ref.Type && slices.Contains(n.Names, ref.Name) }
		if ref.Type != envoy.ListenerType || !slices.ContainsFunc(x.Nacks, refused) {
			return true
		}
	}
	return false
}

// foreign reports whether the client is no proxy of any service. p.mu is held.
func (p *publisher) foreign(x xds.Client) bool {
	return !slices.ContainsFunc(p.config.Services, func(s edge.Service) bool { return routes(x, p.paths(s.Name)) })
}

// service is what of a service's configuration Envoy hears; nil if it has none.
func (p *publisher) service(name discovery.Service) *edge.Service { return p.services[name] }

// list is every proxy in the operator's words.
func (p *publisher) list() []api.Proxy {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]api.Proxy, 0, len(p.proxies))
	byID := map[string][]string{}
	for _, x := range p.proxies {
		if x.Connected {
			byID[x.ID] = append(byID[x.ID], x.Node)
		}
	}
	for _, x := range p.proxies {
		word := p.word(x)
		for _, node := range byID[x.ID] {
			if node != x.Node && x.Connected {
				word.Twins = append(word.Twins, node)
			}
		}
		out = append(out, word)
	}
	return out
}

func (p *publisher) word(x xds.Client) api.Proxy {
	out := api.Proxy{
		Node: x.Node, Connected: x.Connected, Since: x.Since, Foreign: p.foreign(x), Contested: x.Contested, UserAgent: x.UserAgent,
		NackCount: x.NackCount, Holds: []api.Holding{}, Nacks: []api.Rejection{}, Withheld: []api.Withheld{},
	}
	if x.Addr.IsValid() {
		out.Address = x.Addr.String()
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
