package reports

import (
	"time"

	metrics "github.com/envoyproxy/go-control-plane/envoy/service/metrics/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// metricsService hears the counters that proxies push (a metrics_service stats
// sink): all they have, at each flush. Only a few of each cluster are looked at.
type metricsService struct {
	metrics.UnimplementedMetricsServiceServer
	l *Hub
}

func (s metricsService) StreamMetrics(stream metrics.MetricsService_StreamMetricsServer) error {
	var id int // a new variable for each stream
	var node string
	var f flush
	defer func() {
		if node != "" {
			s.l.close(node, &id)
		}
	}()
	for {
		// Decoded as a message without fields, so that the bytes stay what they are:
		// making objects of thousands of metrics a second costs five times the time
		// and seventy times the memory of looking for the few that count.
		var raw emptypb.Empty
		if err := stream.RecvMsg(&raw); err != nil {
			return ended(err)
		}
		m, err := scan(raw.ProtoReflect().GetUnknown())
		if err != nil {
			return err
		}
		if node == "" {
			if node, err = nodeOf(m.identifier); err != nil {
				return err
			}
			if err := s.l.open(node, &id, func(n *reporter) *voice { return &n.counters }); err != nil {
				node = ""
				return err
			}
		}
		if !s.l.hear(node, &id, &f, m) {
			return errReplaced
		}
	}
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
	speaks   bool // it has some cluster's gauge of requests in progress
	bad      bool // a part of it cannot be
	clusters map[string]flushed
}

type flushed struct {
	counters
	sum int // of the cluster's load report at that time
}

// hear takes over one message; false when a newer stream speaks for the node.
func (l *Hub) hear(node string, id *int, f *flush, m scanned) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.nodes[node]
	if n.counters.stream != id {
		return false
	}
	if f.clusters == nil || m.stamp == 0 || m.stamp != f.stamp {
		l.finish(n, *f)
		*f = flush{stamp: m.stamp, clusters: map[string]flushed{}}
	}
	f.at = time.Now()
	n.counters.at = f.at
	if m.bad != "" {
		f.bad = true
		l.refuse(n, m.bad)
	}
	for name, c := range m.clusters {
		f.speaks = f.speaks || c.speaks
		if r := l.cluster(n, name); r != nil {
			f.clusters[name] = flushed{f.clusters[name].with(c), r.sum}
		}
	}
	return true
}

// finish takes over a whole flush. What was not in it is 0, because a proxy sends
// every counter that it ever used. A flush without any cluster's gauge proves
// nothing: the proxy may be told not to send them. One with a part that cannot be is
// not believed at all. l.mu is held.
func (l *Hub) finish(n *reporter, f flush) {
	if !f.speaks || f.bad {
		return
	}
	n.complete = f.at
	for name, r := range n.clusters {
		c := f.clusters[name]
		if c.connects > 0 {
			r.connect, r.connectAt = c.connect, f.at
		}
		if !r.counted.IsZero() {
			r.overflow += grown(r.counters.overflow, c.overflow)
		}
		r.counters, r.counted = c.counters, f.at
		r.compare(c.sum)
	}
	l.notify()
}

// grown is how much a counter grew; one that fell began anew.
func grown(was, is uint64) uint64 {
	if is < was {
		return is
	}
	return is - was
}
