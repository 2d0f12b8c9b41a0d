package reports

import (
	"bytes"
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
	connects                       uint64 // connections that connect is about
	connect                        time.Duration
	speaks                         bool // it had a gauge of requests in progress
}

// with adds what a later message of the same flush says.
func (c counters) with(more counters) counters {
	return counters{
		requests: c.requests + more.requests, pending: c.pending + more.pending, connections: c.connections + more.connections,
		overflow: c.overflow + more.overflow, connects: c.connects + more.connects, connect: max(c.connect, more.connect),
		speaks: c.speaks || more.speaks,
	}
}

// scanned is what one StreamMetricsMessage says of clusters.
type scanned struct {
	identifier []byte
	stamp      int64
	clusters   map[string]counters
	bad        string // why a part of it is not believed
}

// What is looked for.
const (
	requestsActive   = "upstream_rq_active"
	requestsPending  = "upstream_rq_pending_active"
	connectionsOpen  = "upstream_cx_active"
	requestsFull     = "upstream_rq_active_overflow" // above max_requests
	requestsOverflow = "upstream_rq_pending_overflow"
	connectOverflow  = "upstream_cx_overflow"
	connectTime      = "upstream_cx_connect_ms"
)

var (
	counterPrefix = []byte("cluster.")
	wanted        = [...]string{requestsActive, requestsPending, connectionsOpen, requestsFull, requestsOverflow, connectOverflow, connectTime}
)

// scan reads an encoded StreamMetricsMessage. The field numbers are those of
// envoy.service.metrics.v3 and of io.prometheus.client.
func scan(b []byte) (scanned, error) {
	m := scanned{clusters: map[string]counters{}}
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
		return scanned{}, status.Error(codes.InvalidArgument, err.Error())
	}
	return m, nil
}

// family reads one MetricFamily. Its name comes first, as protos are written.
func (m *scanned) family(b []byte) error {
	var cluster, what string
	for len(b) > 0 {
		number, value, _, n := field(b)
		if n < 0 {
			return errNoMetrics
		}
		b = b[n:]
		switch {
		case number == 1:
			if cluster, what = counterName(value); what == "" && m.stamp != 0 {
				return nil
			}
		case number == 4:
			if err := m.metric(cluster, what, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// counterName splits cluster.NAME.WHAT; what is empty when it is not looked for.
func counterName(b []byte) (cluster, what string) {
	b, ok := bytes.CutPrefix(b, counterPrefix)
	if !ok || len(b) > maxName {
		return "", ""
	}
	dot := bytes.LastIndexByte(b, '.')
	if dot < 0 {
		return "", ""
	}
	for _, what := range wanted {
		if string(b[dot+1:]) == what {
			return string(b[:dot]), what
		}
	}
	return "", ""
}

// metric reads one Metric; what is empty when only its time counts.
func (m *scanned) metric(cluster, what string, b []byte) error {
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
	if err != nil || what == "" || what == connectTime && samples == 0 {
		return err
	}
	if !(value >= 0 && value <= maxCount) {
		m.bad = fmt.Sprintf("cluster.%s.%s is %v, which cannot be", cluster, what, value)
		return nil
	}
	var c counters
	switch what {
	case requestsActive:
		c.requests, c.speaks = int(value), true
	case requestsPending:
		c.pending = int(value)
	case connectionsOpen:
		c.connections = int(value)
	case requestsFull, requestsOverflow, connectOverflow:
		c.overflow = uint64(value)
	case connectTime:
		c.connects, c.connect = samples, time.Duration(value*float64(time.Millisecond))
	}
	m.clusters[cluster] = m.clusters[cluster].with(c)
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
			return errNoMetrics
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

var errNoMetrics = errors.New("this is no StreamMetricsMessage")
