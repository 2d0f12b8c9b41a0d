package reports

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/xds/reports/exchange"
)

// Export returns what proxies report to this process.
func (h *Hub) Export() exchange.Reports {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := exchange.Reports{Now: time.Now(), Nodes: []exchange.Node{}}
	for _, node := range slices.Sorted(maps.Keys(h.nodes)) {
		n := h.nodes[node]
		r := exchange.Node{Node: node, Clusters: map[string]exchange.Cluster{}, Parent: n.parents()}
		if n.loads.local() {
			r.Loads = n.loads.at
		}
		if n.counters.local() {
			r.Counters = n.complete
		}
		if r.Loads.IsZero() && r.Counters.IsZero() {
			continue
		}
		for name, c := range n.clusters {
			r.Clusters[name] = c.export()
		}
		out.Nodes = append(out.Nodes, r)
	}
	return out
}

func (r *clusterReport) export() exchange.Cluster {
	out := exchange.Cluster{
		Endpoints: map[netip.AddrPort]exchange.Endpoint{},
		Requests:  r.counters.requests, Pending: r.counters.pending, Connections: r.counters.connections,
		Overflow: r.counters.overflow, Refused: r.counters.refused, Connects: r.counters.connects, Connect: r.counters.connect,
		Unknown: r.unknown,
	}
	for addr, e := range r.endpoints {
		if e.present {
			out.Endpoints[addr] = exchange.Endpoint{Held: e.held, Issued: e.issued, Errors: e.errors, PerSecond: e.perSecond}
		}
	}
	return out
}

// Import takes over what another replica exported; the newest value of each replica
// wins. Reports are merged by node: the two streams of a proxy may end at two
// replicas, and for each kind the newest report counts, whichever replica heard it. A
// replica whose export no longer comes makes its proxies silent after 5 intervals, as
// if the proxies had stopped.
func (h *Hub) Import(replica string, in exchange.Reports) {
	h.mu.Lock()
	defer h.mu.Unlock()
	from := h.replicas[replica]
	if from == nil {
		from = &origin{replica: replica}
		h.replicas[replica] = from
	}
	now := time.Now()
	open := map[*source]bool{} // the streams that are open at the replica
	take := func(s *source, stamp time.Time) bool {
		if stamp.IsZero() {
			return false
		}
		open[s] = true
		return s.update(from, stamp, now.Add(-max(0, in.Now.Sub(stamp))))
	}
	for _, node := range in.Nodes {
		if node.Node == "" || len(node.Node) > maxName {
			continue
		}
		n, err := h.node(h.twin(replica, node))
		if err != nil {
			continue
		}
		if take(&n.loads, node.Loads) {
			h.importLoads(n, node.Clusters)
		}
		if take(&n.counters, node.Counters) {
			h.importCounters(n, node)
		}
	}
	for _, n := range h.nodes {
		for _, s := range []*source{&n.loads, &n.counters} {
			if s.origin == from && !open[s] {
				s.origin = nil // the stream ended there
			}
		}
	}
	h.changed.Set()
}

// twin is the name under which another replica's node is known here. One that reports the
// same kind on an open stream to this process, too, is another process with the same id:
// each counts for itself. A stream that moved between replicas is not, once its end here was
// noticed. h.mu is held.
func (h *Hub) twin(replica string, node exchange.Node) string {
	other := node.Node + " (at " + replica + ")"
	here := h.nodes[node.Node]
	if here != nil && (here.loads.local() && !node.Loads.IsZero() || here.counters.local() && !node.Counters.IsZero()) {
		return other
	}
	delete(h.nodes, other)
	return node.Node
}

// update makes a replica the source of a report that is newer than the known one; false
// when it is not, and then nothing changes. The report came to the replica at stamp by
// the replica's clock, which is at by the clock of this process. Reports of the same
// replica are told apart by stamp, because the distance of the clocks varies from
// export to export.
func (s *source) update(from *origin, stamp, at time.Time) bool {
	if s.origin == from && stamp.Equal(s.stamp) || s.origin != from && !at.After(s.at) {
		return false
	}
	s.origin, s.stamp, s.at = from, stamp, at
	return true
}

// importLoads takes over a node's newest load report from its source, another replica.
// The totals grow by what the replica's totals grew since its last export. By its first
// export they do not grow, because the growth before it is not known. h.mu is held.
func (h *Hub) importLoads(n *reporter, clusters map[string]exchange.Cluster) {
	for name, c := range clusters {
		r := h.cluster(n, name)
		if r == nil {
			continue
		}
		if r.importer != n.loads.origin {
			r.importer, r.imported = n.loads.origin, map[netip.AddrPort]exchange.Endpoint{}
		}
		stats := map[netip.AddrPort]endpointStats{}
		for addr, e := range c.Endpoints {
			if len(stats) >= maxEndpoints {
				break
			}
			s := endpointStats{held: bounded(e.Held)}
			if was, ok := r.imported[addr]; ok {
				s.issued, s.errors = min(maxCount, increase(was.Issued, e.Issued)), min(maxCount, increase(was.Errors, e.Errors))
			}
			r.imported[addr] = e
			stats[addr] = s
		}
		h.addLoads(name, r, stats, h.interval, n.loads.at)
		for addr := range stats {
			r.endpoints[addr].perSecond = max(0, min(maxRate, c.Endpoints[addr].PerSecond))
		}
	}
}

// bounded is a count of what is in progress, as it can be.
func bounded(n int) int { return max(0, min(n, maxHeld)) }

// importCounters takes over a node's newest flush from another replica. h.mu is held.
func (h *Hub) importCounters(n *reporter, node exchange.Node) {
	f := flush{at: n.counters.at, gauge: true, clusters: map[string]clusterFlush{}, generation: generation{parent: node.Parent}}
	for name, c := range node.Clusters {
		if r := h.cluster(n, name); r != nil {
			f.clusters[name] = clusterFlush{counters{
				requests: bounded(c.Requests), pending: bounded(c.Pending), connections: bounded(c.Connections),
				overflow: min(maxSince, c.Overflow), refused: min(maxSince, c.Refused), connects: c.Connects, connect: max(0, min(time.Hour, c.Connect)),
				gauge: !c.Unknown, open: !c.Unknown,
			}, r.reported}
		}
	}
	h.addFlush(n, f)
}
