package rollout

import (
	"cmp"
	"slices"

	"github.com/sluice-proxy/sluice/discovery"
)

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
