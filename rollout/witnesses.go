package rollout

import (
	"math"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/evidence"
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

// contradicted is how many connections the proxies have to a member that says it holds
// none: as they report of it, or as their counters have of its colour and nobody says that
// he holds. 0 where nobody contradicts it. An old report, or one in which a proxy's part is
// old, contradicts nobody for longer than witnessPatience.
func contradicted(s *situation, f *fact) int {
	m, sight := s.state.Members[f.key], s.seen.Instances[f.key]
	if !f.endpoint || sight.Status.Held() > 0 || sight.EmptySince.IsZero() {
		return 0
	}
	newer := func(at time.Time, whole bool) bool {
		return s.now.Sub(sight.EmptySince) <= witnessPatience || whole && at.Sub(sight.EmptySince) >= witnessSettle
	}
	load, reported := s.load(m)
	if reported && load.Held > 0 && !sharesPlace(s, f) && newer(load.At, s.now.Sub(load.At) <= loadMaxAge && len(load.Silent) == 0) {
		return load.Held
	}
	if newer(s.seen.Witnesses[m.Colour].At, complete(s, m.Colour)) && (emptied(s, f) || !moves(s, m.Colour)) {
		return unclaimed(s, m.Colour)
	}
	return 0
}

// emptied reports whether a member has just said for the first time that it holds nothing.
func emptied(s *situation, f *fact) bool {
	since := s.seen.Instances[f.key].EmptySince
	return !since.IsZero() && s.now.Sub(since) <= witnessPatience
}

// moves reports whether a member of the colour holds something or was just emptied: what
// the counters have may have been that one's, a moment ago. It is waited for anyway, and
// who was empty before is asked about when it is done.
func moves(s *situation, c discovery.Colour) bool {
	l := s.members()
	is, known := l.moves[c]
	if !known {
		is = slices.ContainsFunc(l.colour[c], func(f *fact) bool {
			return f.endpoint && !f.twin.second && (f.held+f.ending > 0 || emptied(s, f))
		})
		l.moves[c] = is
	}
	return is
}

// unclaimed is how many connections of a colour the proxies' counters have that none of its
// members holds, by its own word or by their reports. Where one has no drain endpoint and is
// not proven empty they may be that one's, and it is waited for anyway.
func unclaimed(s *situation, c discovery.Colour) int {
	l := s.members()
	if n, known := l.unclaimed[c]; known {
		return n
	}
	n := s.seen.Witnesses[c].Active
	for _, f := range l.colour[c] {
		load, _ := s.load(s.state.Members[f.key])
		switch {
		case f.twin.second:
		case f.endpoint:
			n -= max(f.held+f.ending, load.Held)
		case s.ended(f):
			n -= load.Held
		default:
			n = 0
		}
		n = max(0, n)
	}
	l.unclaimed[c] = n
	return n
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
	load, _ := s.load(s.state.Members[f.key])
	switch recent := s.now.Sub(s.seen.Instances[f.key].EmptySince) <= witnessPatience; {
	case recent && load.Held == 0:
		return blocked(FreshCounts, "%s holds nothing by its own word; waiting for the proxies, which last counted %s of %s", f.key, n, f.colour)
	case recent:
		return blocked(FreshCounts, "%s holds nothing by its own word; waiting for the proxies, which last reported %s to it", f.key, n)
	case load.Held == 0:
		return blocked(Contradicted, "waiting: %s says that it holds nothing, but the proxies count %s of %s that no instance says it holds; mend the drain endpoints, or stop the instances and deregister them", f.key, n, f.colour)
	}
	return blocked(Contradicted, "waiting: %s says that it holds nothing, but the proxies report %s to it; mend its drain endpoint, or stop the instance and deregister it", f.key, n)
}

const (
	// pastProxies and pastShare are how much more than the proxies report an instance
	// may say that it holds before that is strange: so many connections, or a share of
	// what is reported, one in so many. Some clients come past the proxies.
	pastProxies = 10
	pastShare   = 20
)

// borneOut is the most that a member may be taken to hold by what the proxies report, and
// what came since that, at its rate; false: they do not all report, so nobody can say.
func borneOut(s *situation, m *state.Member) (int, bool) {
	load, reported := s.load(*m)
	if !reported || !fresh(s, m, load) {
		return 0, false
	}
	came := int(load.PerSecond * max(0, s.now.Sub(load.At).Seconds()))
	return past(load.Held) + came, true
}

// fresh reports whether every proxy has just said what it has to the member, and their
// counters of the colour do not say that the reports leave something out.
func fresh(s *situation, m *state.Member, load observed.Load) bool {
	w := s.seen.Witnesses[m.Colour]
	return len(load.Silent) == 0 && s.now.Sub(load.At) <= loadMaxAge && complete(s, m.Colour) && w.Active <= past(w.Reported)
}

// past is the most that may be so where the proxies report n.
func past(n int) int { return n + max(pastProxies, n/pastShare) }

// deeds sums up all processes of the member since it was counted.
func deeds(s *situation, key discovery.InstanceID, m state.Member) state.Doings {
	sight := s.seen.Instances[key]
	d := m.Deeds(sight)
	if most := letGo(s, &m, sight.Status.Asked); d.Evicted > most && m.Counts.Only(sight) {
		d.Evicted = most
	}
	return d
}

// letGo is the most connections that a member which refuses new ones can have let go: whom
// the proxies still report it holds, but for those that it was just told to let go, and for
// those that it says it has asked.
func letGo(s *situation, m *state.Member, asked int) uint64 {
	if !m.Process.Shut || s.state.Rollout == nil {
		return math.MaxUint64
	}
	load, reported := s.load(*m)
	if !reported || !fresh(s, m, load) {
		return math.MaxUint64
	}
	steps := 2 + int(s.now.Sub(load.At)/s.state.Rollout.Policy.Funnel.Every.D())
	still := max(0, load.Held-asked-steps*m.Share)
	return m.Process.Evicted + uint64(max(0, m.Process.Held-still))
}

// newest is the newest epoch that the members remember, as far as they are believed.
func newest(s *situation) (epoch uint64) {
	for key := range s.state.Members {
		if said := s.seen.Instances[key].Status.Epoch; said <= evidence.KnownEpoch {
			epoch = max(epoch, said)
		}
	}
	return epoch
}
