package reports

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

// counters is what one flush says of one cluster.
type counters struct {
	requests, pending, connections int
	overflow                       uint64
	refused                        uint64 // connects that failed, and 503
	connects                       uint64 // connections that connect is about
	connect                        time.Duration
	gauge, open                    bool // it had a gauge of requests in progress, of open connections
}

// plausible reports whether a proxy can have that many.
func (c counters) plausible() bool {
	return c.requests <= maxHeld && c.pending <= maxHeld && c.connections <= maxHeld && max(c.overflow, c.refused) <= maxSince
}

// plus adds what a later message of the same flush says.
func (c counters) plus(more counters) counters {
	return counters{
		requests: c.requests + more.requests, pending: c.pending + more.pending, connections: c.connections + more.connections,
		overflow: c.overflow + more.overflow, refused: c.refused + more.refused, connects: max(c.connects, more.connects), connect: max(c.connect, more.connect),
		gauge: c.gauge || more.gauge, open: c.open || more.open,
	}
}

// message is what one StreamMetricsMessage says of clusters.
type message struct {
	identifier []byte
	stamp      int64
	clusters   map[string]counters
	generation generation
	fault      string // why a part of it is not believed
}

// generation is what a flush says of a hot restart; nil: nothing. The new process flushes the
// sum of its own gauges and its parent's, but only those that it used itself.
type generation struct {
	epoch  *int // how often it was restarted
	parent *int // the connections that the process before it still has
	server bool // it has the counter of the server that is written beside these two
}

func (g generation) plus(more generation) generation {
	return generation{cmp.Or(more.epoch, g.epoch), cmp.Or(more.parent, g.parent), g.server || more.server}
}

// told reports whether the flush says if there is a process before this one. An Envoy that
// runs with --disable-hot-restart flushes its server's counters, but none of a hot restart.
func (g generation) told() bool { return g.parent != nil || g.server && g.epoch == nil }

// parents is how many connections the process before it still has; nil: the flush does not tell.
func (g generation) parents() *int {
	if g.told() && g.parent == nil {
		return new(0)
	}
	return g.parent
}

// whole reports whether a gauge that is not in the flush is 0: no process before this one
// has a connection that could be in it.
func (g generation) whole() bool { n := g.parents(); return n != nil && *n == 0 }

// The names of the stats that are read.
const (
	requestsActive   = "upstream_rq_active"
	requestsPending  = "upstream_rq_pending_active"
	connectionsOpen  = "upstream_cx_active"
	requestsFull     = "upstream_rq_active_overflow" // above max_requests
	requestsOverflow = "upstream_rq_pending_overflow"
	connectOverflow  = "upstream_cx_overflow"
	connectTime      = "upstream_cx_connect_ms"
	connectFailed    = "upstream_cx_connect_fail"
	unavailable      = "upstream_rq_503"

	parentConnections = "server.parent_connections"
	restartEpoch      = "server.hot_restart_epoch"
	serverConnections = "server.total_connections"
)

var (
	statPrefix = []byte("cluster.")
	statNames  = [...]string{requestsActive, requestsPending, connectionsOpen, requestsFull, requestsOverflow, connectOverflow, connectTime, connectFailed, unavailable}
)

// scan reads an encoded StreamMetricsMessage. The field numbers are those of
// envoy.service.metrics.v3 and of io.prometheus.client.
func scan(b []byte) (message, error) {
	m := message{clusters: map[string]counters{}}
	err := fields(b, func(number protowire.Number, value []byte, _ uint64) error {
		switch number {
		case 1:
			m.identifier = value
		case 2:
			return m.family(value)
		}
		return nil
	})
	if err != nil {
		return message{}, status.Error(codes.InvalidArgument, err.Error())
	}
	return m, nil
}

// family reads one MetricFamily. Its name comes first, as protos are written.
func (m *message) family(b []byte) error {
	var cluster, stat string
	for len(b) > 0 {
		number, value, _, n := field(b)
		if n < 0 {
			return errNotMetrics
		}
		b = b[n:]
		switch {
		case number == 1:
			if cluster, stat = statName(value); stat == "" && m.stamp != 0 {
				return nil
			}
		case number == 4:
			if err := m.metric(cluster, stat, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// statName splits cluster.NAME.STAT; stat is empty when it is not one of statNames. Those
// of the server have no cluster.
func statName(b []byte) (cluster, stat string) {
	switch string(b) {
	case parentConnections:
		return "", parentConnections
	case restartEpoch:
		return "", restartEpoch
	case serverConnections:
		return "", serverConnections
	}
	b, ok := bytes.CutPrefix(b, statPrefix)
	if !ok || len(b) > maxName {
		return "", ""
	}
	dot := bytes.LastIndexByte(b, '.')
	if dot < 0 {
		return "", ""
	}
	for _, stat := range statNames {
		if string(b[dot+1:]) == stat {
			return string(b[:dot]), stat
		}
	}
	return "", ""
}

// metric reads one Metric; stat is empty when only its time counts.
func (m *message) metric(cluster, stat string, b []byte) error {
	var value float64
	var samples uint64
	err := fields(b, func(number protowire.Number, inner []byte, n uint64) error {
		switch number {
		case 2, 3: // gauge, counter
			return fields(inner, func(number protowire.Number, _ []byte, n uint64) error {
				if number == 1 {
					value = math.Float64frombits(n)
				}
				return nil
			})
		case 4:
			var err error
			samples, value, err = summary(inner)
			return err
		case 6:
			m.stamp = int64(n)
		}
		return nil
	})
	if err != nil || stat == "" || stat == connectTime && samples == 0 {
		return err
	}
	if !(value >= 0 && value <= maxSince) {
		m.fault = fmt.Sprintf("cluster.%s.%s is %v, which cannot be", cluster, stat, value)
		return nil
	}
	var c counters
	switch stat {
	case parentConnections:
		m.generation.parent = new(int(value))
		return nil
	case restartEpoch:
		m.generation.epoch = new(int(value))
		return nil
	case serverConnections:
		m.generation.server = true
		return nil
	case requestsActive:
		c.requests, c.gauge = int(value), true
	case requestsPending:
		c.pending = int(value)
	case connectionsOpen:
		c.connections, c.open = int(value), true
	case requestsFull, requestsOverflow, connectOverflow:
		c.overflow = uint64(value)
	case connectFailed, unavailable:
		c.refused = uint64(value)
	case connectTime:
		c.connects, c.connect = samples, time.Duration(min(value, maxCount)*float64(time.Millisecond))
	}
	if c = m.clusters[cluster].plus(c); !c.plausible() {
		m.fault = fmt.Sprintf("cluster.%s.%s is %v, which cannot be", cluster, stat, value)
		return nil
	}
	m.clusters[cluster] = c
	return nil
}

// summary reads a Summary: how many samples, and the 99th percentile.
func summary(b []byte) (samples uint64, p99 float64, err error) {
	err = fields(b, func(number protowire.Number, inner []byte, n uint64) error {
		if number == 1 {
			samples = n
		}
		if number != 3 {
			return nil
		}
		var at, value float64
		err := fields(inner, func(number protowire.Number, _ []byte, n uint64) error {
			switch number {
			case 1:
				at = math.Float64frombits(n)
			case 2:
				value = math.Float64frombits(n)
			}
			return nil
		})
		if at == 0.99 {
			p99 = value
		}
		return err
	})
	return samples, p99, err
}

// fields yields every field of an encoded message: the bytes of a string or
// message, or the bits of a number.
func fields(b []byte, yield func(number protowire.Number, value []byte, bits uint64) error) error {
	for len(b) > 0 {
		number, value, bits, n := field(b)
		if n < 0 {
			return errNotMetrics
		}
		b = b[n:]
		if err := yield(number, value, bits); err != nil {
			return err
		}
	}
	return nil
}

// field reads the first field, which is n bytes long; n < 0: it is none.
func field(b []byte) (number protowire.Number, value []byte, bits uint64, n int) {
	number, kind, tag := protowire.ConsumeTag(b)
	if tag < 0 {
		return 0, nil, 0, tag
	}
	switch b = b[tag:]; kind {
	case protowire.BytesType:
		value, n = protowire.ConsumeBytes(b)
	case protowire.VarintType:
		bits, n = protowire.ConsumeVarint(b)
	case protowire.Fixed64Type:
		bits, n = protowire.ConsumeFixed64(b)
	default:
		n = protowire.ConsumeFieldValue(number, kind, b)
	}
	if n < 0 {
		return 0, nil, 0, n
	}
	return number, value, bits, tag + n
}

var errNotMetrics = errors.New("this is no StreamMetricsMessage")
