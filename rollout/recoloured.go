package rollout

import (
	"fmt"
	"slices"

	"github.com/sluice-proxy/sluice/discovery"
)

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
