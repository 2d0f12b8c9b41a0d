package observed

import (
	"maps"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// Peers is whom an instance hears of: whose connections it holds, accepts or refuses,
// by machine as in its status. Never changed once made.
type Peers struct {
	// Since is since when each answer of this process has said its peers; zero where the
	// newest did not.
	Since time.Time
	// Quiet is since when each listed peer has held nothing and brought nobody. One that
	// is listed and not here is heard.
	Quiet map[string]time.Time
}

// after is whom it hears of once its status went from was to is at now. Same: by the same
// process, so that totals can be compared.
func (c Peers) after(was, is contract.Status, same bool, now time.Time) Peers {
	if !is.PeersAgree() {
		return Peers{}
	}
	first := c.Since.IsZero() || !same
	if first {
		c = Peers{Since: now}
	}
	next := c.Quiet
	own := func() {
		if maps.Equal(next, c.Quiet) {
			if next = maps.Clone(c.Quiet); next == nil {
				next = map[string]time.Time{}
			}
		}
	}
	for name, p := range is.Peers {
		before := was.Peers[name]
		heard := p.Held > 0 || !first && (p.Accepted != before.Accepted || p.Refused != before.Refused)
		if _, quiet := next[name]; quiet == heard {
			own()
			if heard {
				delete(next, name)
			} else {
				next[name] = now
			}
		}
	}
	for name := range c.Quiet {
		if _, listed := is.Peers[name]; !listed {
			own()
			delete(next, name)
		}
	}
	c.Quiet = next
	return c
}

// refusalSpan is how long refused connections count on their own: an instance remembers
// the running span and the one before.
const refusalSpan = 5 * time.Second

// PeerRefusals is how many connections an instance refused lately, by the machine that they
// came from as in its status; empty is not told. Never changed once made.
type PeerRefusals struct {
	// Began is when the running span did; zero before the first answer.
	Began time.Time
	// Now is what was refused since, Last in the span before.
	Now, Last map[string]uint64
}

// after is what it refused lately once its status went from was, at the moment then, to
// is at now. Same: by the same process, so that totals can be compared. Of what came in
// more than a span, one span's share counts.
func (l PeerRefusals) after(was, is contract.Status, same bool, then, now time.Time) PeerRefusals {
	switch age := now.Sub(l.Began); {
	case l.Began.IsZero() || !same:
		return PeerRefusals{Began: now}
	case now.Sub(then) > refusalSpan:
		share := refusalSpan.Seconds() / now.Sub(then).Seconds()
		l = PeerRefusals{Began: now}
		if n := uint64(share * float64(is.Refused-min(is.Refused, was.Refused))); n > 0 {
			l.Last = map[string]uint64{"": n}
		}
		return l
	case age >= 2*refusalSpan:
		l = PeerRefusals{Began: now}
	case age >= refusalSpan:
		l = PeerRefusals{Began: l.Began.Add(refusalSpan), Last: l.Now}
	}
	if is.Refused <= was.Refused {
		return l
	}
	counts := maps.Clone(l.Now)
	if counts == nil {
		counts = map[string]uint64{}
	}
	rest := is.Refused - was.Refused
	for name, p := range is.Peers {
		if before := was.Peers[name].Refused; p.Refused > before {
			n := min(p.Refused-before, rest)
			counts[name], rest = counts[name]+n, rest-n
		}
	}
	if rest > 0 {
		counts[""] += rest
	}
	l.Now = counts
	return l
}

// Since is what was refused since from, as far as it is remembered, and from when on
// that is.
func (l PeerRefusals) Since(from time.Time) (counts map[string]uint64, began time.Time) {
	last := l.Began.Add(-refusalSpan)
	switch {
	case l.Began.IsZero() || l.Began.Before(from):
		return nil, time.Time{}
	case last.Before(from) || len(l.Last) == 0:
		return l.Now, l.Began
	}
	counts = maps.Clone(l.Last)
	for name, n := range l.Now {
		counts[name] += n
	}
	return counts, last
}
