package rollout

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// staysClosed reports whether a member gets no new connections until it says that it
// serves: it last said that it refuses them, it was told to, or it was closed already.
// One that answers speaks for itself.
func staysClosed(f *fact, m state.Member) bool {
	switch {
	case !f.endpoint, f.answers && !f.refusing:
		return false
	}
	return m.Closed || f.refusing || f.drains
}

// keepClosed remembers of each of the members whether it stays closed, so that a rolloutd
// that starts anew and cannot ask it knows.
func keepClosed(t *turn, of []*fact) {
	for _, f := range of {
		if m := t.state.Members[f.key]; m.Closed != staysClosed(f, m) {
			m.Closed = !m.Closed
			t.put(f.key, m)
		}
	}
}

// closeUnheard closes each instance of the target that has not said since the rollout
// began that it takes new connections; an abort goes back to instances that had them,
// and closes only those that refuse.
func closeUnheard(t *turn) {
	r := t.state.Rollout
	for _, f := range t.members().target {
		m := t.state.Members[f.key]
		said := !f.refusing && !f.heard.Before(r.Since)
		closed := f.endpoint && !said && (!r.Aborting || staysClosed(f, m))
		if closed != m.Closed {
			m.Closed = closed
			t.put(f.key, m)
		}
		if closed && f.serves {
			t.rollout().LeftBehind = append(t.state.Rollout.LeftBehind, "instance "+string(f.key))
			t.note(fmt.Sprintf("%s gets no new connections: it has not said that it takes them (%s)", f.key, whyClosed(t.situation, f)))
		}
	}
}

// closingAtFirst is the colours of which an instance that joins is closed until it says that
// it takes new connections: the target, and one that gets them now and has others to take
// them. Where the live colour is only being read from what there is, who joins is evidence.
func closingAtFirst(s *situation) map[discovery.Colour]bool {
	out := map[discovery.Colour]bool{}
	if s.state.Unsettled {
		return out
	}
	for _, c := range discovery.Colours {
		out[c] = s.state.Weights()[c] > 0 && len(s.members().open[c]) > 0
	}
	if r := s.state.Rollout; r != nil && !r.Aborting {
		out[r.To] = true
	}
	return out
}

// openHeard opens who says that it takes new connections.
func openHeard(t *turn) {
	for _, f := range t.members().all {
		if m := t.state.Members[f.key]; m.Closed && f.answers && !f.refusing {
			m.Closed = false
			t.put(f.key, m)
		}
	}
}

// whyClosed is why an instance has not said that it takes new connections.
func whyClosed(s *situation, f *fact) string {
	if f.refusing && f.answers {
		return "it refuses them"
	}
	return cmp.Or(s.seen.Instances[f.key].Err, "it has not answered yet")
}

// whyUnsaid is the same beside a sentence; empty before anything is known.
func whyUnsaid(sight observed.Sighting) string {
	if sight.Err == "" {
		return ""
	}
	return " (" + sight.Err + ")"
}

// shutOut lists the healthy instances of a colour that get no new connections because
// they have not said that they take them.
func shutOut(s *situation, c discovery.Colour) (out []*fact) {
	for _, f := range s.members().colour[c] {
		if f.serves && f.shut && !f.drains {
			out = append(out, f)
		}
	}
	return out
}

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
		switch {
		case f.drains || f.refusing:
		case f.shut && f.serves, !f.shut && f.doubtful() && f.serves, !f.shut && f.instance == nil && alive(s, f):
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

// unproxied says that no proxy is connected: an acknowledgement of nobody is none, and
// whoever were let go would have nowhere to go.
func (s *situation) unproxied() *blocker {
	for _, p := range s.seen.Proxies {
		if p.Connected && p.Routes {
			return nil
		}
	}
	if len(s.state.Proxies) == 0 {
		return blocked(NoProxy, "waiting: no Envoy has connected, so nobody is let go; have one connect to rolloutd")
	}
	return blocked(NoProxy, "waiting: no Envoy is connected, so nobody is let go; see that %s can reach rolloutd", names(s.state.Proxies))
}

// targetUnfit says why the target cannot be sent clients.
func (s *situation) targetUnfit() *blocker {
	r := s.state.Rollout
	if s.seen.Fleet.Err != "" {
		return blocked(StaleDiscovery, "waiting: %s", s.seen.Fleet.Err)
	}
	if s.seen.Fleet.Suspect != "" {
		return blocked(StaleDiscovery, "waiting: %s", s.seen.Fleet.Suspect)
	}
	if rivals := s.rivals(); rivals != nil {
		return rivals
	}
	for _, f := range s.members().target {
		if f.instance == nil {
			continue
		}
		if f.recoloured {
			return blocked(Recoloured, "waiting: %s: %s", f.key, f.recolouring())
		}
		if !f.serves {
			return blocked(TargetSick, "waiting: %s instance %s is %s; deregister it to go on without it", r.To, f.key, f.instance.Health)
		} else if sight := s.seen.Instances[f.key]; hangs(s, f, sight) {
			// Its process is gone or hangs, and no health check has noticed yet.
			return blocked(TargetSick, "waiting: %s instance %s answers no more (%s); bring it back, or deregister it to go on without it", r.To, f.key, sight.Err)
		}
	}
	if len(s.members().open[r.To]) == 0 {
		return blocked(TargetSick, "waiting: %s has no healthy instance that takes new connections; start some, or abort", r.To)
	}
	return nil
}

// hangs reports whether an instance of the target that has answered before does not
// any more: its endpoint refuses connections, or two requests in a row had no answer.
func hangs(s *situation, f *fact, sight observed.Sighting) bool {
	return sight.Refused && s.state.Members[f.key].Counted || sight.Failures >= observed.SilentAfter && !sight.At.IsZero()
}

// rivals names the first two registrations of which one must be wrong; nil when there
// are none.
func (s *situation) rivals() *blocker {
	for _, f := range s.members().all {
		if f.twin.rival {
			return blocked(Twins, "waiting: %s", f.rivalry(s.state))
		}
	}
	return nil
}
