package contract

import (
	"fmt"
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
