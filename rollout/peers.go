package rollout

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
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

// knocksFor is how long refused connections count on their own: an instance remembers
// the running span and the one before.
const knocksFor = 5 * time.Second

// Knocks is how many connections an instance refused lately, by the machine that they
// came from as in its status; empty is not told. Never changed once made.
type Knocks struct {
	// Began is when the running span did; zero before the first answer.
	Began time.Time
	// Now is what was refused since, Last in the span before.
	Now, Last map[string]uint64
}

// after is what it refused lately once its status went from was, at the moment then, to
// is at now. Same: by the same process, so that totals can be compared. Of what came in
// more than a span, one span's share counts.
func (k Knocks) after(was, is drain.Status, same bool, then, now time.Time) Knocks {
	switch age := now.Sub(k.Began); {
	case k.Began.IsZero() || !same:
		return Knocks{Began: now}
	case now.Sub(then) > knocksFor:
		share := knocksFor.Seconds() / now.Sub(then).Seconds()
		k = Knocks{Began: now}
		if n := uint64(share * float64(is.Refused-min(is.Refused, was.Refused))); n > 0 {
			k.Last = map[string]uint64{"": n}
		}
		return k
	case age >= 2*knocksFor:
		k = Knocks{Began: now}
	case age >= knocksFor:
		k = Knocks{Began: k.Began.Add(knocksFor), Last: k.Now}
	}
	if is.Refused <= was.Refused {
		return k
	}
	counts := maps.Clone(k.Now)
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
	k.Now = counts
	return k
}

// since is what was refused since from, as far as it is remembered, and from when on
// that is.
func (k Knocks) since(from time.Time) (counts map[string]uint64, began time.Time) {
	last := k.Began.Add(-knocksFor)
	switch {
	case k.Began.IsZero() || k.Began.Before(from):
		return nil, time.Time{}
	case last.Before(from) || len(k.Last) == 0:
		return k.Now, k.Began
	}
	counts = maps.Clone(k.Last)
	for name, n := range k.Now {
		counts[name] += n
	}
	return counts, last
}

// knocked sums up what the draining side has refused since from, and since when that is.
// Who knocks from an instance's own machine and is no proxy is its health check.
func knocked(s *situation, members []*fact, from time.Time) (by map[string]uint64, total uint64, began time.Time) {
	by = map[string]uint64{}
	var known map[string]bool
	for _, f := range members {
		counts, at := s.seen.Instances[f.key].Knocks.since(from)
		if len(counts) == 0 {
			continue
		}
		if known == nil {
			known = machines(s)
		}
		own := s.state.Members[f.key].Addr.Addr().Unmap()
		for name, n := range counts {
			if name == own.String() && !known[name] && !own.IsLoopback() {
				continue
			}
			by[name] += n
			total += n
		}
		if began.IsZero() || at.Before(began) {
			began = at
		}
	}
	return by, total, began
}

// knocking is how many connections a second the colour refused lately.
func knocking(s *situation, c discovery.Colour) float64 {
	_, total, began := knocked(s, s.members().colour[c], time.Time{}.Add(1))
	if total == 0 {
		return 0
	}
	return float64(total) / max(1, s.now.Sub(began).Seconds())
}

// fewKnocks is how many refused connections are nobody in particular.
const fewKnocks = 4

// turnedAway holds the funnel while new clients still come to the draining side, more
// than it refused before: somebody sends them there, as an Envoy does that is cut off
// and serves, and whom the funnel lets go would be refused, too.
func turnedAway(s *situation) *blocker {
	r := s.state.Rollout
	by, total, began := knocked(s, s.members().old, r.Settled.Add(settle))
	usual := r.Knocking * s.now.Sub(began).Seconds()
	if float64(total) <= max(fewKnocks, usual+3*math.Sqrt(usual)) {
		return nil
	}
	most := slices.SortedFunc(maps.Keys(by), func(a, b string) int {
		return cmp.Or(cmp.Compare(by[b], by[a]), cmp.Compare(a, b))
	})[0]
	from := most + whose(s, most)
	switch most {
	case "":
		from = "machines that the instances do not name"
	case drain.OtherPeers:
		from = "machines that are not told apart"
	}
	return blocked(TurnedAway, "waiting: %s still refuses new clients, most of them from %s; see who sends them there, and that every Envoy hears rolloutd", r.From, from)
}

// whose says which proxies run on the machine.
func whose(s *situation, machine string) string {
	for _, node := range s.state.Proxies {
		if at, ok := s.state.Machines[node]; ok && at.String() == machine {
			return fmt.Sprintf(" (%s)", node)
		}
	}
	return ""
}
