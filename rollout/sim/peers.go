package sim

import (
	"maps"
	"slices"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// direct is the machine from which clients come that pass every proxy.
const direct = "192.0.2.1"

// peers is what an instance of an exact world has with each machine. In a large one
// nobody counts, and instances do not say it.
type peers map[string]contract.Peer

func (p *peers) add(from string, more contract.Peer) {
	if *p == nil {
		*p = peers{}
	}
	was := (*p)[from]
	(*p)[from] = contract.Peer{Held: was.Held + more.Held, Accepted: was.Accepted + more.Accepted, Refused: was.Refused + more.Refused}
}

func (p *peers) hold(n int, from string) { p.add(from, contract.Peer{Held: n, Accepted: uint64(n)}) }
func (p *peers) refuse(from string)      { p.add(from, contract.Peer{Refused: 1}) }

// release ends a connection of who has most.
func (p *peers) release() {
	most := ""
	for name, peer := range *p {
		if was := (*p)[most].Held; peer.Held > was || peer.Held == was && peer.Held > 0 && name < most {
			most = name
		}
	}
	if most != "" {
		p.add(most, contract.Peer{Held: -1})
	}
}

// move has the connections of one machine be another's, which takes them over.
func (p *peers) move(from, to string) {
	if held := (*p)[from].Held; held > 0 {
		p.add(from, contract.Peer{Held: -held})
		p.hold(held, to)
	}
}

func (p peers) said() map[string]contract.Peer {
	out := maps.Clone(map[string]contract.Peer(p))
	if out == nil {
		out = map[string]contract.Peer{}
	}
	return out
}

// hears reports whether any instance holds a connection from there.
func (f *Fleet) hears(machine string) bool {
	return slices.ContainsFunc(f.instances, func(in *Instance) bool { return in.peers[machine].Held > 0 })
}
