package drain

import (
	"net"
	"net/http"
	"net/netip"
	"slices"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// nodeOf is the proxy that a request came through; empty where that is not said, or
// said twice and not the same.
func nodeOf(h http.Header) string {
	said := h[contract.NodeHeader]
	for _, node := range said {
		if node != said[0] {
			return ""
		}
	}
	if len(said) == 0 || len(said[0]) > contract.MaxName {
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

// from is whose connections a level covers. The zero value is everybody's.
type from struct {
	names []string // sorted; nil: everybody
	addrs []netip.Addr
}

// newFrom is of an order's words, which passed checkFrom.
func newFrom(names []string) from {
	f := from{names: slices.Compact(slices.Sorted(slices.Values(names)))}
	for _, name := range f.names {
		if addr, err := netip.ParseAddr(name); err == nil {
			f.addrs = append(f.addrs, plain(addr))
		}
	}
	return f
}

func (f from) everybody() bool      { return f.names == nil }
func (f from) same(other from) bool { return slices.Equal(f.names, other.names) }

// covers: who does not say through which node it came is known by its address.
func (f from) covers(at origin) bool {
	switch {
	case f.everybody():
		return true
	case at.node != "":
		_, found := slices.BinarySearch(f.names, at.node)
		return found
	}
	return at.addr.IsValid() && slices.Contains(f.addrs, at.addr)
}

// peers counts by machine. The first count is of all that are not told apart; a Conn
// knows its own by the index. The zero value has seen nobody.
type peers struct {
	at    map[netip.Addr]uint16
	count [1 + contract.MaxPeers]struct {
		contract.Peer
		addr netip.Addr
		last uint64 // when it last did something, by time
	}
	time uint64
}

// of is the index of the machine's count. One that is new takes the place of the one
// that holds nothing and has been quiet for longest.
func (p *peers) of(addr netip.Addr) uint16 {
	p.time++
	if !addr.IsValid() {
		return 0
	}
	i, known := p.at[addr]
	if !known {
		if p.at == nil {
			p.at = map[netip.Addr]uint16{}
		}
		if i = p.place(); i == 0 {
			return 0
		}
		delete(p.at, p.count[i].addr)
		p.count[i].Peer, p.count[i].addr = contract.Peer{}, addr
		p.at[addr] = i
	}
	p.count[i].last = p.time
	return i
}

// place is the index for a new machine; 0 when all hold something.
func (p *peers) place() (quiet uint16) {
	if n := len(p.at); n < contract.MaxPeers {
		return uint16(n + 1)
	}
	for i := uint16(1); i <= contract.MaxPeers; i++ {
		if c := &p.count[i]; c.Held == 0 && (quiet == 0 || c.last < p.count[quiet].last) {
			quiet = i
		}
	}
	return quiet
}

// said is what a status says of them.
func (p *peers) said() map[string]contract.Peer {
	out := make(map[string]contract.Peer, len(p.at)+1)
	for addr, i := range p.at {
		out[addr.String()] = p.count[i].Peer
	}
	if rest := p.count[0].Peer; rest != (contract.Peer{}) {
		out[contract.OtherPeers] = rest
	}
	return out
}

// machine is the address of the machine behind a net.Addr; the zero value if it has
// none.
func machine(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case nil:
		return netip.Addr{}
	case *net.TCPAddr:
		if a == nil {
			return netip.Addr{}
		}
		return plain(a.AddrPort().Addr())
	}
	return machineOf(a.String())
}

// machineOf is that behind "address:port".
func machineOf(remote string) netip.Addr {
	at, _ := netip.ParseAddrPort(remote)
	return plain(at.Addr())
}

func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }
