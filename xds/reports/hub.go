// Package reports hears what proxies report of the connections that they carry:
// load reports by endpoint (LRS) and counters by cluster (the metrics service). It
// sums them up over the proxies, merges what other replicas heard, and knows which
// proxy has ceased to report. It knows nothing of resources, services or rollouts.
package reports

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	load "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	metrics "github.com/envoyproxy/go-control-plane/envoy/service/metrics/v3"
	"google.golang.org/grpc"

	"github.com/sluice-proxy/sluice/xds/reports/exchange"
)

const (
	// loadInterval is how often proxies report when Options do not say.
	loadInterval = time.Second
	// silentAfter is after how many intervals without a report a proxy is silent.
	silentAfter = 5
	// loadsKept is how long the reports of a silent node, and the totals of an
	// endpoint that nobody reports, are remembered.
	loadsKept = 24 * time.Hour

	maxReporters = 10_000  // nodes remembered
	maxEndpoints = 10_000  // endpoints of one cluster that are remembered
	maxCount     = 1 << 31 // more is no count
	maxName      = 512     // bytes of a cluster's name
	maxIgnored   = 8       // names of ignored clusters that are shown
)

// Hub is everything that proxies report of what they carry, by node id: load
// reports and counters come on streams of their own, which need not be on the
// connection of the discovery stream. Its methods may be called concurrently.
type Hub struct {
	log      *slog.Logger
	interval time.Duration
	proxies  map[string]bool // clusters that proxies have of their own
	changed  chan struct{}   // a level: "look again"

	mu        sync.Mutex // guards what follows, down to the last report
	published map[string]bool
	nodes     map[string]*reporter
	totals    map[string]map[netip.AddrPort]total // by cluster
	swept     time.Time
	replicas  map[string]*int // the voice of each other replica that was imported from
	others    map[*int]bool   // the same
}

// total is of all nodes together, so that it never falls when one is forgotten.
type total struct {
	issued, errors uint64
	at             time.Time
}

// reporter is one node.
type reporter struct {
	node            string
	loads, counters voice
	clusters        map[string]*clusterReport
	complete        time.Time // when the counters came that are known to have been all

	trouble string
	refused uint64
	told    time.Time // when trouble was logged last
	ignored []string
}

// voice is a node's newest stream of one kind.
type voice struct {
	stream *int // tells streams, and other replicas, apart; nil once it has ended
	at     time.Time
	said   time.Time // the same by the clock of the replica that passes it on
}

// clusterReport is what one node says of one cluster.
type clusterReport struct {
	at        time.Time // of the newest load report
	sum       int       // in progress in that report
	endpoints map[netip.AddrPort]*endpointReport
	// unseen is how much more the counters had than sum, at the two newest
	// comparisons since an endpoint was last found absent.
	unseen   [2]int
	compared int
	// there is what was last passed on of each endpoint, by the replica of that voice.
	there map[netip.AddrPort]exchange.Endpoint
	by    *int

	counters  counters
	counted   time.Time
	overflow  uint64
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
}

// New returns a hub that ignores every cluster until Follow names it.
func New(o Options) *Hub {
	l := &Hub{
		log: o.Logger, interval: o.Interval, proxies: map[string]bool{},
		changed: make(chan struct{}, 1), published: map[string]bool{},
		nodes: map[string]*reporter{}, totals: map[string]map[netip.AddrPort]total{},
		replicas: map[string]*int{}, others: map[*int]bool{},
	}
	if l.interval <= 0 {
		l.interval = loadInterval
	}
	for _, name := range o.OwnClusters {
		l.proxies[name] = true
	}
	return l
}

// Register adds to g the services that hear load reports and counters.
func (l *Hub) Register(g *grpc.Server) {
	load.RegisterLoadReportingServiceServer(g, loadService{l: l})
	metrics.RegisterMetricsServiceServer(g, metricsService{l: l})
}

// Follow names clusters of which proxies may report, BEFORE the proxies hear of
// them. One that was named once may hold connections for as long as this process
// lives, so none is ever forgotten.
func (l *Hub) Follow(clusters ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range clusters {
		l.published[name] = true
	}
}

func (l *Hub) notify() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// fresh: the node's stream is open, and what came at then is no older than a few
// intervals.
func (l *Hub) fresh(v voice, then, now time.Time) bool {
	return v.stream != nil && now.Sub(then) <= silentAfter*l.interval
}

// reporter finds or makes what is known of a node. l.mu is held.
func (l *Hub) reporter(node string) (*reporter, error) {
	now := time.Now()
	if now.Sub(l.swept) > time.Minute {
		l.swept = now
		l.sweep(now)
	}
	if n := l.nodes[node]; n != nil {
		return n, nil
	}
	if len(l.nodes) >= maxReporters {
		return nil, fmt.Errorf("more than %d nodes report their load", maxReporters)
	}
	n := &reporter{node: node, clusters: map[string]*clusterReport{}}
	l.nodes[node] = n
	return n, nil
}

// sweep forgets what nobody has reported for a day.
func (l *Hub) sweep(now time.Time) {
	for node, n := range l.nodes {
		if n.loads.stream == nil && n.counters.stream == nil &&
			now.Sub(n.loads.at) > loadsKept && now.Sub(n.counters.at) > loadsKept {
			delete(l.nodes, node)
		}
	}
	for _, endpoints := range l.totals {
		for addr, t := range endpoints {
			if now.Sub(t.at) > loadsKept {
				delete(endpoints, addr)
			}
		}
	}
}

// cluster finds or makes the node's report of a cluster; nil when it is not one
// that was published. l.mu is held.
func (l *Hub) cluster(n *reporter, name string) *clusterReport {
	if r := n.clusters[name]; r != nil {
		return r
	}
	if !l.published[name] {
		l.ignore(n, name)
		return nil
	}
	r := &clusterReport{endpoints: map[netip.AddrPort]*endpointReport{}}
	n.clusters[name] = r
	return r
}

func (l *Hub) ignore(n *reporter, name string) {
	if l.proxies[name] || len(n.ignored) >= maxIgnored || slices.Contains(n.ignored, name) {
		return
	}
	n.ignored = append(n.ignored, name)
	l.log.Info("reports of a cluster that was never published are ignored", "node", n.node, "cluster", name)
}

// refuse names a report that is not believed; what was known before stays.
// l.mu is held.
func (l *Hub) refuse(n *reporter, why string) {
	n.refused++
	news := n.trouble != why
	n.trouble = why
	if now := time.Now(); news && now.Sub(n.told) > silentAfter*l.interval || now.Sub(n.told) > time.Hour {
		n.told = now
		l.log.Warn("a proxy's report was refused", "node", n.node, "reason", why)
	}
}
