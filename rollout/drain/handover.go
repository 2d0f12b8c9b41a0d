package drain

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// Memory is what a gate that serves knows beside the connections that it holds: what a
// process needs that goes on in its place, with the same connections. Its JSON is
// read by newer releases, too.
type Memory struct {
	Boot       string                   `json:"boot"`
	Born       time.Time                `json:"born"`
	Accepted   uint64                   `json:"accepted"`
	Refused    uint64                   `json:"refused"`
	Evicted    uint64                   `json:"evicted"`
	Returned   *uint64                  `json:"returned,omitempty"`
	Ticketed   *uint64                  `json:"ticketed,omitempty"`
	Left       uint64                   `json:"left,omitempty"`
	Overstayed uint64                   `json:"overstayed,omitempty"`
	Levels     []RememberedLevel        `json:"levels"`
	Peers      map[string]contract.Peer `json:"peers"`
}

// RememberedLevel is a level whose last order was released, so that a late word is
// still known for one.
type RememberedLevel struct {
	Name    string `json:"name"`
	Rollout string `json:"rollout"`
	Epoch   uint64 `json:"epoch"`
}

// Freeze stands still until thaw is called: every other method waits. It refuses that
// while an order stands, while the gate ends, and while somebody who was told to go
// has not gone.
func (g *Gate) Freeze() (m Memory, thaw func(), err error) {
	g.mu.Lock()
	defer func() {
		if err != nil {
			g.mu.Unlock()
		}
	}()
	for _, l := range g.levels {
		if l.ordered {
			return m, nil, fmt.Errorf("an order of rollout %q stands; wait until it is over", l.rollout)
		}
		m.Levels = append(m.Levels, RememberedLevel{l.name, l.rollout, l.epoch})
	}
	switch {
	case g.ending:
		return m, nil, errors.New("it is shutting down")
	case g.short.n+g.streams.n > 0:
		return m, nil, errors.New("requests are under way; wait a moment")
	case g.lingering > 0:
		return m, nil, fmt.Errorf("%d connections that were told to go have not ended; wait a moment", g.lingering)
	}
	s := g.status()
	m.Boot, m.Born, m.Peers = g.boot, g.born, s.Peers
	m.Accepted, m.Refused, m.Evicted, m.Returned, m.Ticketed = s.Accepted, s.Refused, s.Evicted, s.Returned, s.Ticketed
	m.Left, m.Overstayed = s.Left, s.Overstayed
	return m, g.mu.Unlock, nil
}

// Resume returns the Gate that goes on with what another one knew, and with the
// connections that it held, in the order in which they were admitted; they are not
// counted anew.
func Resume(opt Options, m Memory, held []Hooks) (*Gate, []*Conn) {
	g := New(opt)
	g.boot, g.born = m.Boot, m.Born
	g.accepted, g.refused, g.evicted, g.left, g.overstayed = m.Accepted, m.Refused, m.Evicted, m.Left, m.Overstayed
	if m.Returned != nil {
		g.counts, g.returned = true, *m.Returned
	}
	if m.Ticketed != nil {
		g.tickets, g.ticketed = true, *m.Ticketed
	}
	for _, l := range m.Levels {
		if to := g.standing(l.Name); to != nil {
			to.rollout, to.epoch = l.Rollout, l.Epoch
		}
	}
	conns := make([]*Conn, len(held))
	for i, h := range held {
		c := &Conn{gate: g, owner: closeFunc(h.Close), nth: uint64(i + 1), origin: g.origins.add(h.source())}
		c.active.Store(g.clock())
		g.hold(c)
		conns[i] = c
	}
	for name, p := range m.Peers {
		addr, _ := netip.ParseAddr(name) // "other" is none
		count := &g.origins.count[g.origins.peers.of(addr)]
		count.Accepted, count.Refused = p.Accepted, p.Refused
	}
	return g, conns
}
