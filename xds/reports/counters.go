package reports

import (
	"fmt"
	"time"

	metrics "github.com/envoyproxy/go-control-plane/envoy/service/metrics/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// metricsService hears the counters that proxies push (a metrics_service stats
// sink): all that they have, at each flush. Only a few of each cluster are read.
type metricsService struct {
	metrics.UnimplementedMetricsServiceServer
	hub *Hub
}

func (s metricsService) StreamMetrics(stream metrics.MetricsService_StreamMetricsServer) error {
	first, err := receive(stream)
	if err != nil {
		return closed(err)
	}
	node, err := nodeOf(first.identifier)
	if err != nil {
		return err
	}
	t, err := s.hub.open(stream.Context(), node, "counters", func(n *reporter) *source { return &n.counters })
	if err != nil {
		return err
	}
	defer s.hub.close(t)
	return t.hear(func() error {
		var f flush
		for m := first; ; {
			if !s.hub.addMessage(t, &f, m) {
				return errReplaced
			}
			if m, err = receive(stream); err != nil {
				return closed(err)
			}
		}
	})
}

// receive reads one message. It is decoded as a message without fields, so that the bytes
// stay what they are: making objects of thousands of metrics a second costs five times the
// time and seventy times the memory of looking for the few that count.
func receive(stream metrics.MetricsService_StreamMetricsServer) (message, error) {
	var raw emptypb.Empty
	if err := stream.RecvMsg(&raw); err != nil {
		return message{}, err
	}
	return scan(raw.ProtoReflect().GetUnknown())
}

// nodeOf reads a StreamMetricsMessage.Identifier.
func nodeOf(b []byte) (string, error) {
	var m metrics.StreamMetricsMessage_Identifier
	if err := proto.Unmarshal(b, &m); err != nil {
		return "", err
	}
	return m.GetNode().GetId(), nil
}

// flush is one round of counters of one stream. A proxy may spread it over several
// messages, all with the same time; so it is known to be whole, and is believed,
// when the next one begins.
type flush struct {
	stamp    int64 // the proxy's time, in ms
	at       time.Time
	gauge    bool // it has some cluster's gauge of requests in progress
	fault    bool // a part of it cannot be
	clusters map[string]clusterFlush
	generation
}

// clusterFlush is what one flush has of one cluster.
type clusterFlush struct {
	counters
	reported int // requests in progress in the cluster's load report at that time
}

// addMessage takes one message over into the flush that it is part of; false when the
// stream has to be begun anew.
func (h *Hub) addMessage(t *talk, f *flush, m message) bool {
	t.stream.Heard()
	h.mu.Lock()
	defer h.mu.Unlock()
	n := t.reporter
	if n.counters.origin != t.origin {
		return n.counters.local()
	}
	if f.clusters == nil || m.stamp == 0 || m.stamp != f.stamp {
		h.addFlush(n, *f)
		*f = flush{stamp: m.stamp, clusters: map[string]clusterFlush{}}
	}
	f.at = time.Now()
	n.counters.at = f.at
	f.generation = f.generation.plus(m.generation)
	if m.fault != "" {
		f.fault = true
		h.refuse(n, m.fault)
	}
	for name, c := range m.clusters {
		f.gauge = f.gauge || c.gauge
		if r := h.cluster(n, name); r != nil {
			if c = f.clusters[name].plus(c); !c.plausible() {
				f.fault = true
				h.refuse(n, fmt.Sprintf("the counters of cluster %s sum to %d requests, %d connections and %d overflows, which cannot be", name, c.requests, c.connections, c.overflow))
				continue
			}
			f.clusters[name] = clusterFlush{c, r.reported}
		}
	}
	return true
}

// addFlush takes over a whole flush. A cluster that is not in it counts 0, because a
// proxy sends every counter that it ever used; but only if the flush says that there is no
// process before it that may hold something. A flush without any cluster's gauge
// proves nothing: the proxy may be configured not to send gauges. A flush with a part
// that cannot be is not believed at all. h.mu is held.
func (h *Hub) addFlush(n *reporter, f flush) {
	if !f.gauge || f.fault {
		return
	}
	n.complete, n.generation = f.at, f.generation
	h.cover(n)
	for name, r := range n.clusters {
		c := f.clusters[name]
		if r.unknown = !n.whole() && !(c.gauge && c.open); r.unknown {
			continue
		}
		if c.connects > 0 {
			r.connect, r.connectAt = c.connect, f.at
		}
		if !r.counted.IsZero() {
			r.overflow += min(maxCount, increase(r.counters.overflow, c.overflow))
			r.refused += min(maxCount, increase(r.counters.refused, c.refused))
		}
		r.counters, r.counted = c.counters, f.at
		r.compare(c.reported)
	}
	h.changed.Set()
}

// cover finds the process whose connections the counters of n, after a hot restart, are
// about as well: the one before it, on the same machine, sends none from then on. Where
// several could be meant, none is. Once the parent has no connections it holds nothing.
// h.mu is held.
func (h *Hub) cover(n *reporter) {
	n.covers = ""
	if n.epoch == nil || *n.epoch == 0 || n.parent == nil || n.process == nil || !n.machine.IsValid() {
		return
	}
	now := time.Now()
	var parent *reporter
	for _, m := range h.nodes {
		if m == n || m.process == nil || m.process.Node() != n.process.Node() || m.machine != n.machine || !h.silent(m.counters, m.complete, now) {
			continue
		}
		if parent != nil {
			return
		}
		parent = m
	}
	if parent == nil {
		return
	}
	n.covers = parent.node
	if n.whole() {
		for _, r := range parent.clusters {
			for _, e := range r.endpoints {
				e.held, e.present = 0, false
			}
		}
	}
}

// increase is how much a counter grew from was to is; one that fell began anew.
func increase(was, is uint64) uint64 {
	if is < was {
		return is
	}
	return is - was
}
