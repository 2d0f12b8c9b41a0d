package rollout

import "time"

const (
	// witnessSettle is how much later than an instance's word a report of the proxies
	// has to be to contradict it: a count may have been on its way.
	witnessSettle = 2 * time.Second
	// witnessPatience is how long a report that is later is waited for; after that the
	// instance's word stands alone.
	witnessPatience = 5 * time.Second
)

// contradicted is how many connections the proxies report to a member that says it
// holds none; 0 where nobody contradicts it. An old report, or one in which a proxy's
// part is old, contradicts nobody for longer than witnessPatience.
func contradicted(s *situation, f *fact) int {
	m, sight := s.state.Members[f.key], s.seen.Instances[f.key]
	load, reported := s.load(m)
	if !f.endpoint || !reported || load.Held == 0 || sight.Status.Active > 0 || sight.EmptySince.IsZero() || sharesPlace(s, f) {
		return 0
	}
	stale := s.now.Sub(load.At) > loadMaxAge || len(load.Silent) > 0
	if lag := load.At.Sub(sight.EmptySince); s.now.Sub(sight.EmptySince) > witnessPatience && (stale || lag < witnessSettle) {
		return 0
	}
	return load.Held
}

// sharesPlace reports whether a departed member's address is another member's now: what
// the proxies report of it may be that one's.
func sharesPlace(s *situation, f *fact) bool {
	if f.departed.IsZero() {
		return false
	}
	at := s.state.Members[f.key]
	for _, other := range s.members().colour[f.colour] {
		if other.key != f.key && s.state.Members[other.key].Addr == at.Addr {
			return true
		}
	}
	return false
}

// disagreement says which of the witnesses to wait for.
func disagreement(s *situation, f *fact) *blocker {
	n := counted(contradicted(s, f), "connection", "connections")
	if s.now.Sub(s.seen.Instances[f.key].EmptySince) <= witnessPatience {
		return blocked(FreshCounts, "%s holds nothing by its own word; waiting for the proxies, which last reported %s to it", f.key, n)
	}
	return blocked(Contradicted, "waiting: %s says that it holds nothing, but the proxies report %s to it; mend its drain endpoint, or stop the instance and deregister it", f.key, n)
}

// unheld reports whether the proxies prove that they hold nothing of the member: each
// that may hold something has said so, later than since.
func unheld(s *situation, m Member, since time.Time) bool {
	w, ok := s.seen.Witnesses[m.Colour]
	if !ok || len(w.Missing) > 0 || s.now.Sub(w.At) > witnessMaxAge || !w.At.After(since) {
		return false
	}
	for _, node := range s.state.Proxies {
		if _, seen := s.proxy(node); !seen {
			return false
		}
	}
	elsewhere := 0
	for at, load := range s.seen.Loads {
		switch {
		case at.Colour != m.Colour:
		case at.Addr == m.Addr && load.Held > 0:
			return false
		default:
			elsewhere += load.Held
		}
	}
	return w.Active <= elsewhere
}

// isDead reports whether the member's process no longer exists, by two witnesses: its
// endpoint has refused connections for goneAfter, and discovery does not call it healthy
// or, where nobody checks its health, no proxy holds a connection to it.
func isDead(s *situation, f *fact, sight Sighting) bool {
	if !sight.Refused || s.now.Sub(sight.FailingSince) < goneAfter {
		return false
	}
	return !f.serves || unheld(s, s.state.Members[f.key], sight.FailingSince.Add(witnessSettle))
}

// hangs reports whether an instance of the target that has answered before does not
// any more: its endpoint refuses connections, or two requests in a row had no answer.
func hangs(s *situation, f *fact, sight Sighting) bool {
	return sight.Refused && s.state.Members[f.key].Counted || sight.Failures >= silentAfter && !sight.At.IsZero()
}

// silentAfter is how many requests in a row an instance of the target may leave
// unanswered before it is taken for sick.
const silentAfter = 2
