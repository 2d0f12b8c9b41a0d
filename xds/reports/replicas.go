package reports

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/xds/reports/exchange"
)

// Export returns what proxies report here.
func (l *Hub) Export() exchange.Reports {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := exchange.Reports{Now: time.Now(), Nodes: []exchange.Node{}}
	for _, node := range slices.Sorted(maps.Keys(l.nodes)) {
		n := l.nodes[node]
		r := exchange.Node{Node: node, Clusters: map[string]exchange.Cluster{}}
		if l.own(n.loads) {
			r.Loads = n.loads.at
		}
		if l.own(n.counters) {
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

// own: it is a proxy's stream to this process that speaks.
func (l *Hub) own(v voice) bool { return v.stream != nil && !l.others[v.stream] }

func (c *clusterReport) export() exchange.Cluster {
	out := exchange.Cluster{
		Endpoints: map[netip.AddrPort]exchange.Endpoint{},
		Requests:  c.counters.requests, Pending: c.counters.pending, Connections: c.counters.connections,
		Overflow: c.counters.overflow, Connects: c.counters.connects, Connect: c.counters.connect,
	}
	for addr, e := range c.endpoints {
		if e.present {
			out.Endpoints[addr] = exchange.Endpoint{Held: e.held, Issued: e.issued, Errors: e.errors, PerSecond: e.perSecond}
		}
	}
	return out
}

// Import takes over what another replica exported; the newest value of each replica
// wins. Reports are merged by node: the two streams of a proxy may end at two
// replicas, and for each kind the newest report counts, whoever brings it. A replica
// that is not heard of any more makes its proxies silent after 5 intervals, as if
// they were.
func (l *Hub) Import(replica string, r exchange.Reports) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := l.replicas[replica]
	if id == nil {
		id = new(int)
		l.replicas[replica], l.others[id] = id, true
	}
	now := time.Now()
	told := map[*voice]bool{}
	for _, in := range r.Nodes {
		if in.Node == "" || len(in.Node) > maxName {
			continue
		}
		n, err := l.reporter(in.Node)
		if err != nil {
			continue
		}
		if !in.Loads.IsZero() {
			told[&n.loads] = true
			if n.loads.passed(id, in.Loads, now.Add(-max(0, r.Now.Sub(in.Loads)))) {
				l.importLoads(n, in.Clusters)
			}
		}
		if !in.Counters.IsZero() {
			told[&n.counters] = true
			if n.counters.passed(id, in.Counters, now.Add(-max(0, r.Now.Sub(in.Counters)))) {
				l.importCounters(n, in.Clusters)
			}
		}
	}
	for _, n := range l.nodes {
		for _, v := range []*voice{&n.loads, &n.counters} {
			if v.stream == id && !told[v] {
				v.stream = nil // the stream ended there
			}
		}
	}
	l.notify()
}

// passed makes another replica the voice if what it passes on is news: said is when
// it came there by the clock of there, at by the one of here.
func (v *voice) passed(id *int, said, at time.Time) bool {
	if v.stream == id && said.Equal(v.said) || v.stream != id && !at.After(v.at) {
		return false
	}
	v.stream, v.said, v.at = id, said, at
	return true
}

// importLoads takes over the newest load report of a node. Totals grow by what they
// grew there; where they stood at first is no news. l.mu is held.
func (l *Hub) importLoads(n *reporter, clusters map[string]exchange.Cluster) {
	for name, c := range clusters {
		r := l.cluster(n, name)
		if r == nil {
			continue
		}
		if r.by != n.loads.stream {
			r.by, r.there = n.loads.stream, map[netip.AddrPort]exchange.Endpoint{}
		}
		news := map[netip.AddrPort]said{}
		for addr, e := range c.Endpoints {
			s := said{held: max(0, min(e.Held, maxCount))}
			if was, ok := r.there[addr]; ok {
				s.issued, s.errors = grown(was.Issued, e.Issued), grown(was.Errors, e.Errors)
			}
			r.there[addr] = e
			news[addr] = s
		}
		l.apply(name, r, news, l.interval, n.loads.at)
		for addr, e := range c.Endpoints {
			r.endpoints[addr].perSecond = e.PerSecond
		}
	}
}

// importCounters takes over the newest flush of a node. l.mu is held.
func (l *Hub) importCounters(n *reporter, clusters map[string]exchange.Cluster) {
	f := flush{at: n.counters.at, speaks: true, clusters: map[string]flushed{}}
	for name, c := range clusters {
		if r := l.cluster(n, name); r != nil {
			f.clusters[name] = flushed{counters{
				requests: max(0, c.Requests), pending: max(0, c.Pending), connections: max(0, c.Connections),
				overflow: c.Overflow, connects: c.Connects, connect: c.Connect,
			}, r.sum}
		}
	}
	l.finish(n, f)
}
