package rollout

import (
	"cmp"
	"fmt"
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

// staysAs reports whether a member that discovery calls the other colour stays what it
// is: it was given its connections as that, until it is proven to hold none, and the
// last that takes new connections of a colour that gets some does not leave it.
func staysAs(s *situation, key discovery.InstanceID) bool {
	m := s.state.Members[key]
	i := slices.IndexFunc(s.members().all, func(f fact) bool { return f.key == key })
	if i < 0 {
		return false
	}
	f := &s.members().all[i]
	switch {
	case f.dead:
		return false
	case f.endpoint && (!f.answers || f.held > 0), !f.endpoint && !s.witnessedEmpty(m.Colour):
		return true
	case f.refusing || s.state.Weights()[m.Colour] == 0:
		return false
	}
	return !slices.ContainsFunc(s.members().open[m.Colour], func(other *fact) bool { return other.key != key })
}

// claimed says why an instance that discovery calls the colour's is not believed to be
// one; empty where there is none.
func (s *situation) claimed(c discovery.Colour) string {
	for _, f := range s.members().all {
		switch {
		case f.twin.rival:
			return f.rivalry(s.state)
		case f.recoloured && f.instance.Colour == c:
			return fmt.Sprintf("%s: %s", f.key, f.recolouring())
		}
	}
	return ""
}

// recolouring says what is not believed of a member that discovery calls the other
// colour.
func (f *fact) recolouring() string {
	return fmt.Sprintf("it is registered as %s and stays %s until it is proven to hold none of the connections that it was given as that; give it back its colour, or end it", f.instance.Colour, f.colour)
}

// remembered is the fleet of a service that was not read since this process started:
// the instances that were in discovery when the state was stored, taken as healthy.
// Envoys have them, and that discovery cannot be read says nothing of them.
func (s State) remembered(unread string) discovery.Fleet {
	f := discovery.Fleet{Unread: unread, Err: unread + "; the instances that were stored last are used"}
	for key, m := range s.Members {
		if key == m.ID && m.Departed.IsZero() {
			f.Instances = append(f.Instances, discovery.Instance{ID: m.ID, Node: m.Node, Colour: m.Colour, Addr: m.Addr, Drain: m.Drain, Health: discovery.Passing})
		}
	}
	slices.SortFunc(f.Instances, func(a, b discovery.Instance) int { return cmp.Compare(a.ID, b.ID) })
	f.Twins = discovery.FindTwins(f.Instances)
	return f
}

// unread is why nothing at all is known of the service; nil when something is.
func (s *situation) unread() *blocker {
	if s.seen.Fleet.Unread == "" || len(s.state.Members) > 0 || s.state.Retired {
		return nil
	}
	return blocked(Unread, "%s was never read from discovery, so new connections get 503: %s", s.state.Service, s.seen.Fleet.Unread)
}
