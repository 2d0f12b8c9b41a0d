package drain

import (
	"net/http"
	"net/netip"
)

// NodeHeader is the request header in which an Envoy says its node id. It replaces
// whatever a client says there.
const NodeHeader = "X-Envoy-Downstream-Service-Node"

// nodeOf is the proxy that a request came through; empty where that is not said, or
// said twice and not the same.
func nodeOf(h http.Header) string {
	said := h[NodeHeader]
	for _, node := range said {
		if node != said[0] {
			return ""
		}
	}
	if len(said) == 0 || len(said[0]) > MaxName {
		return ""
	}
	return said[0]
}

// origin is where a connection comes from.
type origin struct {
	addr netip.Addr // the machine at the other end; the zero value is not known, or not told apart
	node string     // the proxy by its name; empty is not known
}

// maxNodes is how many proxies on machines are told apart by name.
const maxNodes = 4096

// origins knows where each connection that has not ended came from, by two bytes of it. The first
// indices are those of peers, of who has no node's name; behind them are the named.
type origins struct {
	peers
	index map[location]uint16
	nodes []named
	hand  int // where the last one was found that holds nothing
	// lingering is how many of an index were told to go and have not ended.
	lingering map[uint16]int
}

// location is a node on a machine, which is an index of peers.
type location struct {
	peer uint16
	node string
}

type named struct {
	location
	held int
}

// add is the index of who comes from there, with one connection more.
func (o *origins) add(from origin) uint16 {
	peer := o.peers.of(from.addr)
	o.count[peer].Held++
	if from.node == "" {
		return peer
	}
	at := location{peer, from.node}
	i, known := o.index[at]
	if !known {
		if i, known = o.room(); !known {
			return peer
		}
		delete(o.index, o.nodes[i].location)
		if o.index == nil {
			o.index = map[location]uint16{}
		}
		o.nodes[i].location, o.index[at] = at, i
	}
	o.nodes[i].held++
	return uint16(len(o.count)) + i
}

// accept counts a connection as accepted.
func (o *origins) accept(c *Conn) { o.count[o.peer(c.origin)].Accepted++ }

// peer is the machine's index of an origin's.
func (o *origins) peer(at uint16) uint16 {
	if n := uint16(len(o.count)); at >= n {
		return o.nodes[at-n].peer
	}
	return at
}

// room is an index for a new node; none when all hold something.
func (o *origins) room() (i uint16, ok bool) {
	if len(o.nodes) < maxNodes {
		o.nodes = append(o.nodes, named{})
		return uint16(len(o.nodes) - 1), true
	}
	for range o.nodes {
		if o.hand = (o.hand + 1) % len(o.nodes); o.nodes[o.hand].held == 0 {
			return uint16(o.hand), true
		}
	}
	return 0, false
}

// remove takes away one connection, which has ended.
func (o *origins) remove(c *Conn) {
	at := c.origin
	if n := uint16(len(o.count)); at >= n {
		o.nodes[at-n].held--
		at = o.nodes[at-n].peer
	}
	o.count[at].Held--
}

// linger has n more of them linger.
func (o *origins) linger(c *Conn, n int) {
	if o.lingering == nil {
		o.lingering = map[uint16]int{}
	}
	if o.lingering[c.origin] += n; o.lingering[c.origin] == 0 {
		delete(o.lingering, c.origin)
	}
}

// of is where a connection came from that has not ended.
func (o *origins) of(c *Conn) origin { return o.nth(c.origin) }

func (o *origins) nth(i uint16) origin {
	at, node := i, ""
	if n := uint16(len(o.count)); at >= n {
		at, node = o.nodes[i-n].peer, o.nodes[i-n].node
	}
	return origin{o.count[at].addr, node}
}
