package rollout_test

import (
	"slices"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/sim"
)

// alive holds that a colour which gets new connections has an open endpoint while one of
// its members lives, and serves.
func (s *story) alive() {
	w := s.Wish()
	for c, share := range w.Weights {
		open := func(e desired.Endpoint) bool { return !e.Draining }
		if share == 0 || slices.ContainsFunc(w.Endpoints[c], open) {
			continue
		}
		for key, m := range s.State().Members {
			in := s.Fleet.Instance(string(m.ID))
			if m.Colour == c && key == m.ID && in != nil && in.Addr == m.Addr && !in.Dead() && !in.Deaf && !in.Draining() && in.Health.Serves() && !m.Outgoing {
				s.t.Fatalf("%s gets new connections and has nobody to take them, while %s serves: %s", c, key, s.Reason().Text)
			}
		}
	}
}

// colour is what the instance is held to be: what it was given its connections as, when
// its tags said something else than what it is.
func (s *story) colour(in *sim.Instance) discovery.Colour {
	if m, ok := s.State().Members[in.ID]; ok && m.Addr == in.Addr {
		return m.Colour
	}
	return in.Side()
}
