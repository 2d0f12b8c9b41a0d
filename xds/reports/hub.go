// Package reports hears what proxies report of the connections that they carry:
// load reports by endpoint (LRS) and counters by cluster (the metrics service). It
// sums them up over the proxies, merges what other replicas heard, and knows which
// proxy has ceased to report. It knows nothing of resources, services or rollouts.
package reports

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	load "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	metrics "github.com/envoyproxy/go-control-plane/envoy/service/metrics/v3"
	"google.golang.org/grpc"

	"github.com/sluice-proxy/sluice/internal/level"
	"github.com/sluice-proxy/sluice/xds/process"
	"github.com/sluice-proxy/sluice/xds/reports/exchange"
)

const (
	// defaultInterval is how often proxies report when Options do not say.
	defaultInterval = time.Second
	// silentAfter is the number of intervals without a report after which a proxy
	// is silent.
	silentAfter = 5
	// retention is how long the reports of a silent node, and the totals of an
	// endpoint that no proxy reports, are remembered.
	retention = 24 * time.Hour

	maxReporters = 10_000  // nodes remembered
	maxEndpoints = 10_000  // endpoints of one cluster that are remembered
	maxHeld      = 1 << 24 // requests that one proxy can have in progress
	maxCount     = 1 << 31 // more is no count of what happened between two reports
	maxSince     = 1 << 53 // more is no count of what happened since a proxy started
	maxRate      = 1e9     // more is no rate
	maxName      = 512     // bytes of a cluster's name
	maxIgnored   = 8       // names of ignored clusters that are shown
)

// Hub holds everything that proxies report of what they carry, by the name of the process:
// load reports and counters come on streams of their own, which need not be on the
// connection of the discovery stream. Its methods may be called concurrently.
type Hub struct {
	log         *slog.Logger
	interval    time.Duration
	ownClusters map[string]bool // clusters that proxies have of their own
	changed     level.Level
	processes   *process.Book

	mu       sync.Mutex // guards what follows, down to the last report
	clusters map[string]bool
	nodes    map[string]*reporter
	totals   map[string]map[netip.AddrPort]total // by cluster
	swept    time.Time
	replicas map[string]*origin // of the other replicas' reports
}

// total counts what all nodes together issued to one endpoint, so that it never
// falls when a node is forgotten.
type total struct {
	issued, errors uint64
	at             time.Time
}

// reporter is one process.
type reporter struct {
	node            string           // its name
	process         *process.Process // nil while only other replicas have heard of it
	loads, counters source
	clusters        map[string]*clusterReport
	complete        time.Time // when the counters came that are known to have been all
	machine         netip.Addr
	generation             // by the newest flush
	covers          string // the process that the counters are about as well

	trouble string
	refused uint64
	logged  time.Time // when trouble was logged last
	ignored []string
}

// origin identifies, by its address, one stream of a proxy or one other replica.
type origin struct {
	replica string // empty: a stream to this process
}

// source is where a node's reports of one kind come from: the newest stream, here
// or at another replica.
type source struct {
	origin *origin   // nil once the stream has ended
	at     time.Time // of the newest report, by the clock of this process
	stamp  time.Time // the same by the clock of the replica that exported it
}

// local reports whether the source is a proxy's open stream to this process.
func (s source) local() bool { return s.origin != nil && s.origin.replica == "" }

// clusterReport is what one node says of one cluster.
type clusterReport struct {
	at        time.Time // of the newest load report
	reported  int       // requests in progress in that report
	endpoints map[netip.AddrPort]*endpointReport
	// excess is how many requests more than reported the counters had, at the two
	// newest comparisons since an endpoint was last found absent.
	excess      [2]int
	comparisons int
	// imported is what importer, another replica, exported last of each endpoint.
	imported map[netip.AddrPort]exchange.Endpoint
	importer *origin

	counters  counters
	counted   time.Time
	unknown   bool // the newest flush did not have them, and that proves nothing
	overflow  uint64
	refused   uint64
	connect   time.Duration
	connectAt time.Time
}

// endpointReport is what one node says of one endpoint.
type endpointReport struct {
	held           int
	issued, errors uint64 // since this process started
	perSecond      float64
	// present: it was in the newest report. A proxy leaves out an endpoint that
	// has nothing, and also one that was removed while it has connections, so
	// absence alone says nothing and the last count stays until the proxy's
	// counters show that there is nothing beyond what it reports.
	present bool
}

// Options of a Hub.
type Options struct {
	Logger *slog.Logger // required
	// Interval is how often proxies report their load. Default one second.
	Interval time.Duration
	// OwnClusters are clusters that proxies have of their own, from their
	// bootstrap: what they report of those is ignored without a word.
	OwnClusters []string
	// Processes knows which process a stream is of; nil is a book of its own.
	Processes *process.Book
}

// New returns a hub that ignores every cluster until Follow names it.
func New(o Options) *Hub {
	h := &Hub{
		log: o.Logger, interval: o.Interval, ownClusters: map[string]bool{},
		changed: level.New(), clusters: map[string]bool{},
		nodes: map[string]*reporter{}, totals: map[string]map[netip.AddrPort]total{},
		replicas: map[string]*origin{}, processes: cmp.Or(o.Processes, process.New()),
	}
	h.processes.Watch(h.changed.Set)
	if h.interval <= 0 {
		h.interval = defaultInterval
	}
	for _, name := range o.OwnClusters {
		h.ownClusters[name] = true
	}
	return h
}

// Register adds to g the services that hear load reports and counters.
func (h *Hub) Register(g *grpc.Server) {
	load.RegisterLoadReportingServiceServer(g, loadService{hub: h})
	metrics.RegisterMetricsServiceServer(g, metricsService{hub: h})
}

// Follow names clusters of which proxies may report, BEFORE the proxies hear of
// them. One that was named once may hold connections for as long as this process
// lives, so none is ever forgotten.
func (h *Hub) Follow(clusters ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range clusters {
		h.clusters[name] = true
	}
}

// silent reports whether the source's stream has ended or what came from it at then
// is older than silentAfter intervals.
func (h *Hub) silent(s source, then, now time.Time) bool {
	return s.origin == nil || now.Sub(then) > silentAfter*h.interval
}

// contested reports whether two connections speak for the process: what it reports may be
// the word of one of two.
func (n *reporter) contested() bool { return n.process != nil && n.process.Contested() }

// node finds or makes what is known of a node. h.mu is held.
func (h *Hub) node(node string) (*reporter, error) {
	now := time.Now()
	if now.Sub(h.swept) > time.Minute {
		h.swept = now
		h.sweep(now)
	}
	if n := h.nodes[node]; n != nil {
		return n, nil
	}
	if len(h.nodes) >= maxReporters {
		return nil, fmt.Errorf("more than %d nodes report their load", maxReporters)
	}
	n := &reporter{node: node, clusters: map[string]*clusterReport{}}
	h.nodes[node] = n
	return n, nil
}

// sweep forgets the nodes and the totals that no report was about for the
// retention. h.mu is held.
func (h *Hub) sweep(now time.Time) {
	for node, n := range h.nodes {
		if n.loads.origin == nil && n.counters.origin == nil &&
			now.Sub(n.loads.at) > retention && now.Sub(n.counters.at) > retention {
			delete(h.nodes, node)
		}
	}
	for _, endpoints := range h.totals {
		for addr, t := range endpoints {
			if now.Sub(t.at) > retention {
				delete(endpoints, addr)
			}
		}
	}
}

// cluster finds or makes the node's report of a cluster; nil when Follow never named
// the cluster. h.mu is held.
func (h *Hub) cluster(n *reporter, name string) *clusterReport {
	if r := n.clusters[name]; r != nil {
		return r
	}
	if !h.clusters[name] {
		h.ignore(n, name)
		return nil
	}
	r := &clusterReport{endpoints: map[netip.AddrPort]*endpointReport{}}
	n.clusters[name] = r
	return r
}

func (h *Hub) ignore(n *reporter, name string) {
	if h.ownClusters[name] || len(n.ignored) >= maxIgnored || slices.Contains(n.ignored, name) {
		return
	}
	n.ignored = append(n.ignored, name)
	h.log.Info("reports of a cluster that was never published are ignored", "node", n.node, "cluster", name)
}

// refuse records why a report of the node is not believed; what was known before stays.
// h.mu is held.
func (h *Hub) refuse(n *reporter, why string) {
	n.refused++
	changed := n.trouble != why
	n.trouble = why
	if now := time.Now(); changed && now.Sub(n.logged) > silentAfter*h.interval || now.Sub(n.logged) > time.Hour {
		n.logged = now
		h.log.Warn("a proxy's report was refused", "node", n.node, "reason", why)
	}
}
