package rollout

import (
	"fmt"
	"slices"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/drain"
)

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
func borneOut(s *situation, m Member) (int, bool) {
	load, reported := s.load(m)
	if !reported || len(load.Silent) > 0 || s.now.Sub(load.At) > loadMaxAge || !complete(s, m.Colour) {
		return 0, false
	}
	return load.Held + max(pastProxies, load.Held/pastShare), true
}

// complete reports whether every proxy that may hold something of the colour reports.
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
func noted(s *situation, key discovery.InstanceID, m Member) Counts {
	c := m.Counts.noted(s.seen.Instances[key])
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

// impossible reports that an instance says it has closed more than it can have: what it
// held before, and what it admitted since.
func impossible(before, now drain.Status) error {
	closed, admitted := now.Evicted-before.Evicted, now.Accepted-before.Accepted
	if most := uint64(before.Active) + admitted; closed > most {
		return contradicting(fmt.Sprintf("its answers contradict each other: it let %d connections go after it held %d and admitted %d more; mend its drain endpoint", closed, before.Active, admitted))
	}
	return nil
}
