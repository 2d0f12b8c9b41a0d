// Package exchange holds the words in which the replicas of rolloutd tell each
// other what proxies report: the JSON of GET /v1/reports. It brings the standard
// library only, so that what speaks HTTP can use them without Envoy's protos.
package exchange

import (
	"net/netip"
	"time"
)

// Reports is what proxies report to one replica on streams of their own: a whole
// value, for the other replicas. What a replica imported is not part of it. Times
// are by the clock of the replica that exports; only their distance to Now counts.
type Reports struct {
	Now   time.Time `json:"now"`
	Nodes []Node    `json:"nodes"` // sorted by Node
}

// Node is what one node reports.
type Node struct {
	Node string `json:"node"`
	// Loads and Counters are when the newest came; zero: that stream is not open.
	Loads    time.Time          `json:"loads,omitzero"`
	Counters time.Time          `json:"counters,omitzero"`
	Clusters map[string]Cluster `json:"clusters"`
	// Parent is how many connections the process before it still has, after a hot restart;
	// null: it does not say.
	Parent *int `json:"parent,omitempty"`
}

// Cluster is what one node reports of one cluster.
type Cluster struct {
	// Endpoints are those of the newest load report; Issued and Errors of each count
	// since the replica that exports them started.
	Endpoints map[netip.AddrPort]Endpoint `json:"endpoints,omitempty"`
	// Counters are of the newest flush.
	Requests    int           `json:"requests"`
	Pending     int           `json:"pending"`
	Connections int           `json:"connections"`
	Overflow    uint64        `json:"overflow"`
	Refused     uint64        `json:"refused,omitempty"`
	Connects    uint64        `json:"connects"`
	Connect     time.Duration `json:"connect"`
	// Unknown: the newest flush did not have the counters, which proves nothing.
	Unknown bool `json:"unknown,omitempty"`
}

// Endpoint is what one node reports of one endpoint.
type Endpoint struct {
	Held      int     `json:"held"`
	Issued    uint64  `json:"issued"`
	Errors    uint64  `json:"errors"`
	PerSecond float64 `json:"per_second"`
}
