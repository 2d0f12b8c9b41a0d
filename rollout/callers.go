package rollout

import (
	"maps"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain"
)

// Callers is whom an instance hears of: whose connections it holds, accepts or refuses,
// by machine as in its status. Never changed once made.
type Callers struct {
	// Since is since when each answer of this process has said its peers; zero where the
	// newest did not.
	Since time.Time
	// Quiet is since when each listed peer has held nothing and brought nobody. One that
	// is listed and not here is heard.
	Quiet map[string]time.Time
}

// after is whom it hears of once its status went from was to is at now. Same: by the same
// process, so that totals can be compared.
func (c Callers) after(was, is drain.Status, same bool, now time.Time) Callers {
	if !is.PeersAgree() {
		return Callers{}
	}
	first := c.Since.IsZero() || !same
	if first {
		c = Callers{Since: now}
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
