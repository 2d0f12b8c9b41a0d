package drain

import (
	"fmt"
	"net"
	"net/netip"
)

// Peer is what an instance has with one machine at the other end of its TCP
// connections, which mostly is a proxy. Totals never fall while the machine is
// listed; they begin anew when it comes back.
type Peer struct {
	Held     int    `json:"held"`              // connections held now, as of Status.Held
	Accepted uint64 `json:"accepted"`          // total admitted
	Refused  uint64 `json:"refused,omitempty"` // total not admitted
}

const (
	// MaxPeers is how many machines a status tells apart.
	MaxPeers = 256
	// OtherPeers stands in Status.Peers for all that are not told apart: who has no
	// address, and who came when MaxPeers others held connections.
	OtherPeers = "other"
)

// checkPeers reports the first rule that they break, in one sentence.
func checkPeers(peers map[string]Peer) error {
	if most := MaxPeers + 1; len(peers) > most {
		return fmt.Errorf("peers has %d entries; it must have at most %d", len(peers), most)
	}
	for name, p := range peers {
		if _, err := netip.ParseAddr(name); err != nil && name != OtherPeers {
			return fmt.Errorf("peers has %q; it must be an IP address, or %s", name, OtherPeers)
		}
		if p.Held < 0 || p.Held > MaxConnections || max(p.Accepted, p.Refused) > MaxTotal {
			return fmt.Errorf("peers says of %s that it holds %d, accepted %d and refused %d; none is below 0 or above %d", name, p.Held, p.Accepted, p.Refused, uint64(MaxTotal))
		}
	}
	return nil
}

// PeersAgree reports whether the status says its peers, and they hold what is held:
// otherwise nothing can be told by them.
func (s Status) PeersAgree() bool {
	held := 0
	for _, p := range s.Peers {
		held += p.Held
	}
	return s.Peers != nil && held == s.Held()
}

// peers counts by machine. The first count is of all that are not told apart; a Conn
// knows its own by the index. The zero value has seen nobody.
type peers struct {
	at    map[netip.Addr]uint16
	count [1 + MaxPeers]struct {
		Peer
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
		p.count[i].Peer, p.count[i].addr = Peer{}, addr
		p.at[addr] = i
	}
	p.count[i].last = p.time
	return i
}

// place is the index for a new machine; 0 when all hold something.
func (p *peers) place() (quiet uint16) {
	if n := len(p.at); n < MaxPeers {
		return uint16(n + 1)
	}
	for i := uint16(1); i <= MaxPeers; i++ {
		if c := &p.count[i]; c.Held == 0 && (quiet == 0 || c.last < p.count[quiet].last) {
			quiet = i
		}
	}
	return quiet
}

// said is what a status says of them.
func (p *peers) said() map[string]Peer {
	out := make(map[string]Peer, len(p.at)+1)
	for addr, i := range p.at {
		out[addr.String()] = p.count[i].Peer
	}
	if rest := p.count[0].Peer; rest != (Peer{}) {
		out[OtherPeers] = rest
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
