package reports

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// ClusterLoad is what the proxies report of one cluster. It is a copy.
type ClusterLoad struct {
	// Endpoints is what their load reports say, summed over the proxies.
	Endpoints map[netip.AddrPort]EndpointLoad
	// Counts is what each proxy's own counters say of the whole cluster, sorted
	// by node. A proxy that never sent counters is not there.
	Counts []Count
	// Said is how many requests each proxy that reports has in its newest load report.
	Said map[string]int
}

// EndpointLoad is what is reported of one endpoint, summed over the proxies that ever
// reported it. A proxy that stopped reporting counts with its last report.
type EndpointLoad struct {
	// Held is how many requests (connections, streams) are in progress.
	Held int
	// Issued and Errors count what was sent there and what failed there since
	// this process started. They never fall.
	Issued, Errors uint64
	// PerSecond is the rate of Issued in the newest reports.
	PerSecond float64
	// At is the oldest of the proxies' newest reports.
	At time.Time
	// Silent names, sorted, the proxies whose part of Held is an old report: they no
	// longer report, or no longer report this endpoint, and have not shown that they
	// hold nothing of it.
	Silent []string
}

// Count is what one proxy's counters say of one cluster. They include the
// connections to endpoints that were removed.
type Count struct {
	Node string
	// Requests are in progress, Pending wait for a connection, Connections are
	// open, be they used or not. A cluster that a proxy has no counters of
	// counts 0 as soon as it has sent all its others.
	Requests, Pending, Connections int
	// Overflow counts what circuit breakers refused since this process started.
	Overflow uint64
	// Refused counts connects that failed and answers 503 since this process started; an
	// overflow may be among them.
	Refused uint64
	// ConnectP99 is the 99th percentile of the time to connect of late; 0: not known.
	ConnectP99 time.Duration
	// At is when the counters came; zero while nothing is known of this cluster.
	At time.Time
	// Silent: no counters came for 5 intervals, or none that can be believed.
	Silent bool
	// Covers is the process that the counters are about as well: after a hot restart the
	// one before it, which sends none any more.
	Covers string
}

// Reporter is one node and how its reports fare.
type Reporter struct {
	Node string
	// Loads and Counters are when the newest came; zero: never.
	Loads, Counters time.Time
	// Silent: one of them came and has not for 5 intervals.
	Silent bool
	// Trouble is why the newest refused report was refused; Refused counts them.
	Trouble string
	Refused uint64
	// Partial: its counters do not say whether a process before it still has connections, so
	// a counter that is missing does not prove a 0.
	Partial bool
	// Ignored names clusters that it reports and that were never published.
	Ignored []string
}

// Load returns what is reported of a cluster.
func (h *Hub) Load(cluster string) ClusterLoad {
	return h.LoadBut(cluster, func(string) bool { return false })
}

// LoadBut is Load without what the nodes hold that are gone: their connections are, too.
// What was ever sent through them stays counted.
func (h *Hub) LoadBut(cluster string, gone func(node string) bool) ClusterLoad {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	out := ClusterLoad{Endpoints: map[netip.AddrPort]EndpointLoad{}, Said: map[string]int{}}
	for _, node := range slices.Sorted(maps.Keys(h.nodes)) {
		if gone(node) {
			continue
		}
		n := h.nodes[node]
		r := n.clusters[cluster]
		if r != nil {
			if !n.contested() && !h.silent(n.loads, r.at, now) {
				out.Said[node] = r.reported
			}
			for addr, e := range r.endpoints {
				out.Endpoints[addr] = out.Endpoints[addr].plus(node, r, e, n.contested() || h.silent(n.loads, r.at, now))
			}
		}
		if !n.counters.at.IsZero() {
			out.Counts = append(out.Counts, n.count(r, n.contested() || h.silent(n.counters, n.complete, now), now))
		}
	}
	for addr, e := range out.Endpoints {
		t := h.totals[cluster][addr]
		e.Issued, e.Errors = t.issued, t.errors
		out.Endpoints[addr] = e
	}
	return out
}

// plus adds what one node, silent or not, reports of the endpoint.
func (e EndpointLoad) plus(node string, r *clusterReport, more *endpointReport, silent bool) EndpointLoad {
	e.Held += more.held
	if !silent && more.present {
		e.PerSecond += more.perSecond
	}
	if silent || !more.present && more.held > 0 {
		e.Silent = append(e.Silent, node)
	}
	if e.At.IsZero() || r.at.Before(e.At) {
		e.At = r.at
	}
	return e
}

// connectRetention is how long a percentile is shown after the last connection.
const connectRetention = 10 * time.Second

// count is what the node's counters say of the cluster that r, which may be nil, is of.
func (n *reporter) count(r *clusterReport, silent bool, now time.Time) Count {
	c := Count{Node: n.node, Silent: silent, Covers: n.covers}
	if r == nil || r.counted.IsZero() {
		if n.whole() {
			c.At = n.complete // it has sent everything, and this was not among it
		}
		return c
	}
	c.Silent = silent || r.unknown
	c.Requests, c.Pending, c.Connections = r.counters.requests, r.counters.pending, r.counters.connections
	c.Overflow, c.Refused, c.At = r.overflow, r.refused, r.counted
	if now.Sub(r.connectAt) < connectRetention {
		c.ConnectP99 = r.connect
	}
	return c
}

// Ended are the processes of which nothing is left: after a hot restart the one after them,
// on the same machine, says that they have no connections any more. What is served from
// then on, it serves.
func (h *Hub) Ended() map[string]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]bool{}
	now := time.Now()
	for _, n := range h.nodes {
		if n.covers != "" && n.whole() && !h.silent(n.counters, n.complete, now) {
			out[n.covers] = true
		}
	}
	return out
}

// Reporters returns how each node's reports fare, sorted by node.
func (h *Hub) Reporters() []Reporter {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	out := make([]Reporter, 0, len(h.nodes))
	for _, n := range h.nodes {
		silent := false
		for _, s := range []source{n.loads, n.counters} {
			silent = silent || !s.at.IsZero() && h.silent(s, s.at, now)
		}
		out = append(out, Reporter{
			Node: n.node, Loads: n.loads.at, Counters: n.counters.at, Silent: silent,
			Partial: !n.complete.IsZero() && !n.told(),
			Trouble: n.trouble, Refused: n.refused, Ignored: slices.Clone(n.ignored),
		})
	}
	slices.SortFunc(out, func(a, b Reporter) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

// Changed has a value whenever Load may say something else than before the
// last receive, apart from silence, which only time brings. There is one channel:
// one receiver.
func (h *Hub) Changed() <-chan struct{} { return h.changed }
