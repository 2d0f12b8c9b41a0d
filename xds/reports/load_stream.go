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
	"google.golang.org/protobuf/types/known/durationpb"
)

// loadService serves load reports. A node's newest stream is its source.
type loadService struct {
	load.UnimplementedLoadReportingServiceServer
	hub *Hub
}

func (s loadService) StreamLoadStats(stream load.LoadReportingService_StreamLoadStatsServer) error {
	first, err := stream.Recv()
	if err != nil {
		return closed(err)
	}
	t, err := s.hub.open(stream.Context(), first.GetNode().GetId(), "loads", func(n *reporter) *source { return &n.loads })
	if err != nil {
		return err
	}
	defer s.hub.close(t)
	if err := stream.Send(&load.LoadStatsResponse{
		SendAllClusters: true, ReportEndpointGranularity: true, LoadReportingInterval: durationpb.New(s.hub.interval),
	}); err != nil {
		return err
	}
	return t.hear(func() error {
		for r := first; ; {
			if !s.hub.addReport(t, r.GetClusterStats()) {
				return errReplaced
			}
			if r, err = stream.Recv(); err != nil {
				return closed(err)
			}
		}
	})
}

// closed is err, or nil when the proxy closed its stream.
func closed(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// addReport takes one load report over; false when the stream has to be begun anew.
func (h *Hub) addReport(t *talk, clusters []*endpoint.ClusterStats) bool {
	t.stream.Heard()
	h.mu.Lock()
	defer h.mu.Unlock()
	n := t.reporter
	if n.loads.origin != t.origin {
		return n.loads.local()
	}
	now := time.Now()
	n.loads.at = now
	for _, c := range clusters {
		name := c.GetClusterName()
		if name == "" || len(name) > maxName {
			h.refuse(n, "a load report names no cluster, or one of more than 512 bytes")
			continue
		}
		r := h.cluster(n, name)
		if r == nil {
			continue
		}
		stats, err := parse(c)
		if err != nil {
			h.refuse(n, fmt.Sprintf("load report of %s: %v", name, err))
			continue
		}
		since := c.GetLoadReportInterval().AsDuration()
		if since <= 0 {
			since = h.interval
		}
		h.addLoads(name, r, stats, since, now)
	}
	h.changed.Set()
	return true
}

// endpointStats is what one report says of one endpoint.
type endpointStats struct {
	held           int
	issued, errors uint64
}

// parse checks the report of one cluster and sums it up by endpoint. A report is
// believed whole or not at all.
func parse(c *endpoint.ClusterStats) (map[netip.AddrPort]endpointStats, error) {
	out := map[netip.AddrPort]endpointStats{}
	for _, locality := range c.GetUpstreamLocalityStats() {
		used := locality.GetTotalRequestsInProgress() > 0 || locality.GetTotalIssuedRequests() > 0
		if used && len(locality.GetUpstreamEndpointStats()) == 0 {
			return nil, errors.New("it names no endpoints")
		}
		for _, e := range locality.GetUpstreamEndpointStats() {
			at := e.GetAddress().GetSocketAddress()
			ip, err := netip.ParseAddr(at.GetAddress())
			if port := at.GetPortValue(); err != nil || port == 0 || port > 65535 {
				return nil, fmt.Errorf("%.64q and port %d are no address", at.GetAddress(), port)
			}
			addr := netip.AddrPortFrom(ip.Unmap(), uint16(at.GetPortValue()))
			s := out[addr]
			for _, n := range []struct{ was, more, most uint64 }{
				{uint64(s.held), e.GetTotalRequestsInProgress(), maxHeld}, {s.issued, e.GetTotalIssuedRequests(), maxCount}, {s.errors, e.GetTotalErrorRequests(), maxCount},
			} {
				if n.more > n.most || n.was+n.more > n.most {
					return nil, fmt.Errorf("%s has a count of %d (as a signed number %d), which cannot be", addr, n.was+n.more, int64(n.more))
				}
			}
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

// addLoads takes over one checked report, which covers the duration since the one
// before it. h.mu is held.
func (h *Hub) addLoads(cluster string, r *clusterReport, stats map[netip.AddrPort]endpointStats, since time.Duration, now time.Time) {
	r.at, r.reported = now, 0
	for addr, e := range r.endpoints {
		if _, in := stats[addr]; !in && e.present {
			e.present, e.perSecond = false, 0
			r.comparisons = 0
		}
	}
	totals := h.totals[cluster]
	if totals == nil {
		totals = map[netip.AddrPort]total{}
		h.totals[cluster] = totals
	}
	for addr, s := range stats {
		e := endpointReport{held: s.held, issued: s.issued, errors: s.errors, perSecond: min(maxRate, float64(s.issued)/since.Seconds()), present: true}
		if was := r.endpoints[addr]; was != nil {
			e.issued, e.errors = e.issued+was.issued, e.errors+was.errors
		}
		r.endpoints[addr] = &e
		r.reported += s.held
		t := totals[addr]
		totals[addr] = total{t.issued + s.issued, t.errors + s.errors, now}
	}
	// Addresses come and go with every deployment: beyond the bound, the endpoints
	// that hold nothing are forgotten.
	if len(r.endpoints) > maxEndpoints {
		maps.DeleteFunc(r.endpoints, func(_ netip.AddrPort, e *endpointReport) bool { return !e.present && e.held == 0 })
	}
	if len(totals) > maxEndpoints {
		maps.DeleteFunc(totals, func(addr netip.AddrPort, _ total) bool { return r.endpoints[addr] == nil })
	}
}

// compare lowers the last counts of the endpoints that are absent from the load
// reports to the excess of the counters over the load reports. Both are sampled a
// moment apart, so the larger of two differences counts. reported is how many
// requests the newest load report had when the counters came. h.mu is held.
func (r *clusterReport) compare(reported int) {
	if r.at.IsZero() {
		return
	}
	r.excess = [2]int{max(0, r.counters.requests-reported), r.excess[0]}
	if r.comparisons++; r.comparisons < 2 {
		return
	}
	for _, e := range r.endpoints {
		if !e.present {
			e.held = min(e.held, max(r.excess[0], r.excess[1]))
		}
	}
}
