package xds

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// Client is one proxy as the server sees it: what it asked for, holds and refused. It is
// a copy; the caller owns it.
type Client struct {
	// Node is the name of the process: the node id, ID, unless several processes share it.
	Node, ID string
	// Contested: two connections speak for it, so it may turn out to be two. What it
	// acknowledged may be the word of one of them.
	Contested bool
	Cluster   string
	UserAgent string
	// Addr is where its newest stream came from.
	Addr      netip.AddrPort
	Connected bool
	// Since is when it connected last; Lost is when its last stream ended,
	// zero while it is connected.
	Since time.Time
	Lost  time.Time
	// Streams is how many streams it has open.
	Streams int
	// Acknowledged is the version that the proxy holds of each resource: what
	// it acknowledged, or said it held when it connected. Of a lost proxy it is
	// what it held last. A resource of which another version is on its way to
	// the proxy, or was in a refused response of several, is not among them: it may be in
	// use already.
	Acknowledged map[resource.Ref]string
	// Everything are the types of which it asks for all resources, Asked what it asks
	// for by name and has not acknowledged. Of a lost proxy, or one that has connected
	// again and not named a type yet, they are what it asked for last.
	Everything map[string]bool
	Asked      map[resource.Ref]bool
	// Nacks are the refusals that no later acknowledgement or removal has settled, sorted
	// by type, the newest first. A name is in one of them.
	Nacks []Nack
	// NackCount counts all refusals since this process started.
	NackCount uint64
	// Withheld is what the proxy asked for and is not sent, sorted by type and name.
	Withheld []Withheld
}

// Nack is a refusal.
type Nack struct {
	Type string
	// Names are the resources of the refused response that have not been
	// settled since; Version is that of the first.
	Names   []string
	Version string
	Message string // as the proxy says it, at most 4 KiB
	At      time.Time
}

// Withheld is a resource that a proxy is not sent, or not told to remove.
type Withheld struct {
	resource.Ref
	Why string // one sentence
}

// Holds reports whether the proxy holds every resource of refs in exactly the
// version given; an empty version means any.
func (c Client) Holds(refs map[resource.Ref]string) bool {
	for ref, version := range refs {
		if got, ok := c.Acknowledged[ref]; !ok || version != "" && got != version {
			return false
		}
	}
	return true
}

// Wants reports whether the proxy asks for the resource or holds it.
func (c Client) Wants(ref resource.Ref) bool {
	_, held := c.Acknowledged[ref]
	return held || c.Asked[ref] || c.Everything[ref.Type]
}

// Clients returns every proxy that is connected, or was within the last hour,
// sorted by node.
func (s *Server) Clients() []Client {
	all := s.peers()
	out := make([]Client, 0, len(all))
	for _, p := range all {
		out = append(out, p.describe())
	}
	slices.SortFunc(out, func(a, b Client) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

// describe copies what is known of the peer.
func (p *peer) describe() Client {
	p.mu.Lock()
	defer p.mu.Unlock()
	names := 0
	for _, h := range p.types {
		names += len(h.names.byName)
	}
	d := Client{
		Node: p.node, ID: p.process.Node(), Contested: p.process.Contested(), Cluster: p.cluster, UserAgent: p.userAgent, Addr: p.addr,
		Connected: len(p.streams) > 0, Since: p.since, Lost: p.lost, Streams: len(p.streams),
		Acknowledged: make(map[resource.Ref]string, names), NackCount: p.nackCount,
		Everything: map[string]bool{}, Asked: map[resource.Ref]bool{},
	}
	for _, typeURL := range slices.Sorted(maps.Keys(p.types)) {
		h := p.types[typeURL]
		if h.everything() {
			d.Everything[typeURL] = true
		}
		for name, e := range h.names.byName {
			if e.named && e.held == nil {
				d.Asked[resource.Ref{Type: typeURL, Name: name}] = true
			}
			switch {
			case e.held == nil:
			case e.unsure():
				d.Asked[resource.Ref{Type: typeURL, Name: name}] = true
			default:
				d.Acknowledged[resource.Ref{Type: typeURL, Name: name}] = e.held.version
			}
			if e.withheld != nil {
				d.Withheld = append(d.Withheld, *e.withheld)
			}
		}
		for _, r := range h.flight.pending {
			for _, c := range r.changed {
				if have := h.names.held(c.Name); have != nil && have.version != c.version {
					delete(d.Acknowledged, c.Ref)
					d.Asked[c.Ref] = true
				}
			}
			for _, name := range r.removed {
				ref := resource.Ref{Type: typeURL, Name: name}
				if _, held := d.Acknowledged[ref]; held {
					delete(d.Acknowledged, ref)
					d.Asked[ref] = true // it may be in use still
				}
			}
		}
		d.Nacks = append(d.Nacks, h.refusals()...)
	}
	slices.SortFunc(d.Withheld, func(a, b Withheld) int { return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name)) })
	return d
}
