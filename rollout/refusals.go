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
	"github.com/sluice-proxy/sluice/rollout/observed"
)

// refusedInAll is how many connections the service has refused.
func refusedInAll(s *situation) (n uint64) {
	for _, c := range discovery.Colours {
		told := uint64(0)
		for _, f := range s.members().colour[c] {
			told += s.seen.Instances[f.key].Status.Refused
		}
		n += max(told, s.seen.Witnesses[c].Refused)
	}
	return n
}

// beginRefusals measures what was refused until now, when the funnel starts.
func beginRefusals(t *turn) {
	r := t.rollout()
	if since := r.Refusals.Since; !since.IsZero() {
		r.Refusals.Before = float64(observed.Grown(r.Refusals.Was, refusedInAll(t.situation))) / max(1, t.now.Sub(since).Seconds())
	}
	r.Refusals.Seen = t.seen.Witnesses[r.To].Refused
}

// tallyRefusals takes over what the proxies' counters say.
func tallyRefusals(t *turn) {
	r := t.state.Rollout
	next := r.Refusals
	if w, ok := t.seen.Witnesses[r.To]; ok && w.Refused != next.Seen {
		next.Proxied, next.Seen = next.Proxied+observed.Grown(next.Seen, w.Refused), w.Refused
	}
	if refused := max(next.Told, next.Proxied, r.Toll.Refused); next != r.Refusals || refused != r.Toll.Refused {
		t.rollout().Refusals = next
		t.rollout().Toll.Refused = refused
	}
}

// refusedByPeers sums up what the draining side has refused since from, and since when that is.
// Who comes from an instance's own machine and is no proxy is its health check.
func refusedByPeers(s *situation, members []*fact, from time.Time) (by map[string]uint64, total uint64, began time.Time) {
	by = map[string]uint64{}
	var known map[string]bool
	for _, f := range members {
		counts, at := s.seen.Instances[f.key].PeerRefusals.Since(from)
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

// refusalRate is how many connections a second the colour refused lately.
func refusalRate(s *situation, c discovery.Colour) float64 {
	_, total, began := refusedByPeers(s, s.members().colour[c], time.Time{}.Add(1))
	if total == 0 {
		return 0
	}
	return float64(total) / max(1, s.now.Sub(began).Seconds())
}

// fewRefusals is how many refused connections are nobody in particular.
const fewRefusals = 4

// turnedAway holds the funnel while new clients still come to the draining side, more
// than it refused before: somebody sends them there, as an Envoy does that is cut off
// and serves, and whom the funnel lets go would be refused, too.
func turnedAway(s *situation) *blocker {
	r := s.state.Rollout
	by, total, began := refusedByPeers(s, s.members().old, r.Settled.Add(settle))
	usual := r.RefusedBefore * s.now.Sub(began).Seconds()
	if float64(total) <= max(fewRefusals, usual+3*math.Sqrt(usual)) {
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
