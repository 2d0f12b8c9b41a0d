package rollout

import (
	"slices"

	"github.com/sluice-proxy/sluice/discovery"
)

// keptOpen is who gets the new connections of a colour that has some when nobody of it
// is sure to serve: those that left discovery and say that they serve, or carry
// connections by the proxies' newest reports, and those of which discovery says what
// cannot be. Discovery errs; a colour is not emptied while it is alive. None
// while the colour has an open instance.
func (s *situation) keptOpen(c discovery.Colour) []*fact {
	l := s.members()
	if len(l.open[c]) > 0 || s.state.Weights()[c] == 0 {
		return nil
	}
	var kept []*fact
	for _, f := range l.colour[c] {
		if !f.drains && !f.refusing && !f.shut && (f.doubtful() && f.serves || f.instance == nil && alive(s, f)) {
			kept = append(kept, f)
		}
	}
	return kept
}

// alive reports whether a member that is not in discovery serves, by its own word or by
// the connections that the proxies report.
func alive(s *situation, f *fact) bool {
	sight := s.seen.Instances[f.key]
	if f.endpoint && (f.answers || sight.At.IsZero() && sight.Err == "") { // not asked yet: rolloutd has just started
		return true
	}
	load, ok := s.load(s.state.Members[f.key])
	return ok && load.Held > 0 && s.now.Sub(load.At) <= witnessMaxAge && !sight.Refused
}

// keeps reports whether a member is kept open.
func (s *situation) keeps(key discovery.InstanceID) bool {
	kept := s.keptOpen(s.state.Members[key].Colour)
	return slices.ContainsFunc(kept, func(f *fact) bool { return f.key == key })
}
