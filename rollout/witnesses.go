package rollout

import (
	"fmt"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/state"
)

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
func unheld(s *situation, m state.Member, since time.Time) bool {
	w := s.seen.Witnesses[m.Colour]
	if !complete(s, m.Colour) || !w.At.After(since) {
		return false
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
func isDead(s *situation, f *fact, sight observed.Sighting) bool {
	if !sight.Refused || s.now.Sub(sight.FailingSince) < goneAfter {
		return false
	}
	return !f.serves || unheld(s, s.state.Members[f.key], sight.FailingSince.Add(witnessSettle))
}

// hangs reports whether an instance of the target that has answered before does not
// any more: its endpoint refuses connections, or two requests in a row had no answer.
func hangs(s *situation, f *fact, sight observed.Sighting) bool {
	return sight.Refused && s.state.Members[f.key].Counted || sight.Failures >= observed.SilentAfter && !sight.At.IsZero()
}

const (
	// pastProxies and pastShare are how much more than the proxies report an instance
	// may say that it holds before that is strange: so many connections, or a share of
	// what is reported, one in so many. Some clients come past the proxies.
	pastProxies = 10
	pastShare   = 20
	// knownEpoch is the highest epoch that an instance is believed to have been ordered
	// in when the state knows of none so high. One who says more fences only himself.
	knownEpoch = 1_000_000_000
)

// borneOut is the most that a member may be taken to hold by what the proxies report;
// false: they do not all report, so nobody can say.
func borneOut(s *situation, m state.Member) (int, bool) {
	load, reported := s.load(m)
	if !reported || len(load.Silent) > 0 || s.now.Sub(load.At) > loadMaxAge || !complete(s, m.Colour) {
		return 0, false
	}
	return load.Held + max(pastProxies, load.Held/pastShare), true
}

// complete reports whether every proxy that may hold something of the colour has just
// said what: one that is known and was not seen since this process started may, too.
func complete(s *situation, c discovery.Colour) bool {
	if s.memo.complete == nil {
		s.memo.complete = map[discovery.Colour]bool{}
		seen := !slices.ContainsFunc(s.state.Proxies, func(node string) bool { _, seen := s.proxy(node); return !seen })
		for c, w := range s.seen.Witnesses {
			s.memo.complete[c] = seen && len(w.Missing) == 0 && s.now.Sub(w.At) <= witnessMaxAge
		}
	}
	return s.memo.complete[c]
}

// weight is what a member counts where shares are taken: what it says that it holds, but
// no more than the proxies bear out. Its ceiling follows its own word all the same, so
// that it is empty in the end even if all its clients come past the proxies.
func weight(s *situation, f *fact) int {
	if !f.endpoint || !f.answers {
		return f.held // what the proxies report is newer
	}
	if most, ok := borneOut(s, s.state.Members[f.key]); ok {
		return min(f.held, most)
	}
	return f.held
}

// overstated says of an instance that says it holds more than the proxies bear out; empty
// when none does.
func overstated(s *situation, f *fact) string {
	n := weight(s, f)
	if n == f.held {
		return ""
	}
	load, _ := s.load(s.state.Members[f.key])
	return fmt.Sprintf("%s says that it holds %d connections, the proxies report %d; it is taken for %d", f.key, f.held, load.Held, n)
}

// grossly is how many times more than the proxies bear out an instance has to say that it
// holds before what it may have closed is bounded by them, too.
const grossly = 4

// noted is the member's counts with its process as it is seen now.
func noted(s *situation, key discovery.InstanceID, m state.Member) state.Counts {
	c := m.Counts.Noted(s.seen.Instances[key])
	if most, ok := borneOut(s, m); ok && c.Process.Held > grossly*most {
		c.Process.Held = most
	}
	return c
}

// newest is the newest epoch that the members remember, as far as they are believed.
func newest(s *situation) (epoch uint64) {
	for key := range s.state.Members {
		if said := s.seen.Instances[key].Status.Epoch; said <= knownEpoch {
			epoch = max(epoch, said)
		}
	}
	return epoch
}
