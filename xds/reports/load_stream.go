package reports

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"time"

	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	load "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// loadService serves load reports. A node's newest stream speaks for it.
type loadService struct {
	load.UnimplementedLoadReportingServiceServer
	l *Hub
}

func (s loadService) StreamLoadStats(stream load.LoadReportingService_StreamLoadStatsServer) error {
	var id int // a new variable for each stream
	first, err := stream.Recv()
	if err != nil {
		return ended(err)
	}
	node := first.GetNode().GetId()
	if err := s.l.open(node, &id, func(n *reporter) *voice { return &n.loads }); err != nil {
		return err
	}
	defer s.l.close(node, &id)
	if err := stream.Send(&load.LoadStatsResponse{
		SendAllClusters: true, ReportEndpointGranularity: true, LoadReportingInterval: durationpb.New(s.l.interval),
	}); err != nil {
		return err
	}
	for r := first; ; {
		if !s.l.take(node, &id, r.GetClusterStats()) {
			return errReplaced
		}
		if r, err = stream.Recv(); err != nil {
			return ended(err)
		}
	}
}

var errReplaced = status.Error(codes.Unavailable, "another stream has spoken for this node; connect again")

// ended is nil when the proxy closed its stream.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// open makes a stream the node's voice of its kind.
func (l *Hub) open(node string, id *int, which func(*reporter) *voice) error {
	if node == "" || len(node) > maxName {
		return status.Error(codes.InvalidArgument, "the first message names no node.id; set it in the bootstrap")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.reporter(node)
	if err != nil {
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	v := which(n)
	if v.stream != nil {
		l.log.Warn("proxy reports again while its older stream is open", "node", node)
	}
	v.stream = id
	l.notify()
	return nil
}

// close ends what a stream says; what it said stays.
func (l *Hub) close(node string, id *int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.nodes[node]
	for _, v := range []*voice{&n.loads, &n.counters} {
		if v.stream == id {
			v.stream = nil
		}
	}
	l.notify()
}

// take hears one load report; false when a newer stream speaks for the node.
func (l *Hub) take(node string, id *int, clusters []*endpoint.ClusterStats) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.nodes[node]
	if n.loads.stream != id {
		return false
	}
	now := time.Now()
	n.loads.at = now
	for _, c := range clusters {
		name := c.GetClusterName()
		if name == "" || len(name) > maxName {
			l.refuse(n, "a load report names no cluster, or one of more than 512 bytes")
			continue
		}
		r := l.cluster(n, name)
		if r == nil {
			continue
		}
		news, err := read(c)
		if err != nil {
			l.refuse(n, fmt.Sprintf("load report of %s: %v", name, err))
			continue
		}
		since := c.GetLoadReportInterval().AsDuration()
		if since <= 0 {
			since = l.interval
		}
		l.apply(name, r, news, since, now)
	}
	l.notify()
	return true
}

// said is one endpoint in one report.
type said struct {
	held           int
	issued, errors uint64
}

// read checks one cluster's report and sums it up by endpoint. It is believed
// whole or not at all.
func read(c *endpoint.ClusterStats) (map[netip.AddrPort]said, error) {
	out := map[netip.AddrPort]said{}
	for _, locality := range c.GetUpstreamLocalityStats() {
		some := locality.GetTotalRequestsInProgress() > 0 || locality.GetTotalIssuedRequests() > 0
		if some && len(locality.GetUpstreamEndpointStats()) == 0 {
			return nil, errors.New("it names no endpoints")
		}
		for _, e := range locality.GetUpstreamEndpointStats() {
			at := e.GetAddress().GetSocketAddress()
			ip, err := netip.ParseAddr(at.GetAddress())
			if port := at.GetPortValue(); err != nil || port == 0 || port > 65535 {
				return nil, fmt.Errorf("%.64q and port %d are no address", at.GetAddress(), port)
			}
			addr := netip.AddrPortFrom(ip.Unmap(), uint16(at.GetPortValue()))
			for _, n := range []uint64{e.GetTotalRequestsInProgress(), e.GetTotalIssuedRequests(), e.GetTotalErrorRequests()} {
				if n > maxCount {
					return nil, fmt.Errorf("%s has a count of %d (as a signed number %d), which cannot be", addr, n, int64(n))
				}
			}
			s := out[addr]
			s.held += int(e.GetTotalRequestsInProgress())
			s.issued += e.GetTotalIssuedRequests()
			s.errors += e.GetTotalErrorRequests()
			if out[addr] = s; len(out) > maxEndpoints {
				return nil, fmt.Errorf("it has more than %d endpoints", maxEndpoints)
			}
		}
	}
	return out, nil
}

// apply takes over one report that was checked. l.mu is held.
func (l *Hub) apply(cluster string, r *clusterReport, news map[netip.AddrPort]said, since time.Duration, now time.Time) {
	r.at, r.sum = now, 0
	for addr, e := range r.endpoints {
		if _, in := news[addr]; !in && e.present {
			e.present, e.perSecond = false, 0
			r.compared = 0
		}
	}
	totals := l.totals[cluster]
	if totals == nil {
		totals = map[netip.AddrPort]total{}
		l.totals[cluster] = totals
	}
	for addr, s := range news {
		e := endpointReport{held: s.held, issued: s.issued, errors: s.errors, perSecond: float64(s.issued) / since.Seconds(), present: true}
		if was := r.endpoints[addr]; was != nil {
			e.issued, e.errors = e.issued+was.issued, e.errors+was.errors
		}
		r.endpoints[addr] = &e
		r.sum += s.held
		t := totals[addr]
		totals[addr] = total{t.issued + s.issued, t.errors + s.errors, now}
	}
	// Addresses come and go with every deployment: beyond the bound those go that
	// hold nothing.
	if len(r.endpoints) > maxEndpoints {
		maps.DeleteFunc(r.endpoints, func(_ netip.AddrPort, e *endpointReport) bool { return !e.present && e.held == 0 })
	}
	if len(totals) > maxEndpoints {
		maps.DeleteFunc(totals, func(addr netip.AddrPort, _ total) bool { return r.endpoints[addr] == nil })
	}
}

// compare lowers the last counts of endpoints that are absent from the load
// reports to what the counters have beyond those. Both are sampled a moment
// apart, so the larger of two differences counts. sum is what the load report said
// when the counters came. l.mu is held.
func (r *clusterReport) compare(sum int) {
	if r.at.IsZero() {
		return
	}
	r.unseen = [2]int{max(0, r.counters.requests-sum), r.unseen[0]}
	if r.compared++; r.compared < 2 {
		return
	}
	for _, e := range r.endpoints {
		if !e.present {
			e.held = min(e.held, max(r.unseen[0], r.unseen[1]))
		}
	}
}
