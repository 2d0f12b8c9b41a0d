package rollout

import (
	"cmp"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// twin is what a member is that shares its address or its drain endpoint with another
// registration. The zero value is a member that shares nothing.
type twin struct {
	// with is the other, and shares what both have, in words.
	with   discovery.InstanceID
	shares string
	// rival: the other has the other colour. Which of the two is right is not known, so
	// neither gets new connections or orders.
	rival bool
	// second: both have one colour and one address, so they are one process, and the
	// other stands for it.
	second bool
	// borrowed: both have one colour and one drain endpoint, but the other an address of
	// its own: the endpoint is the other's.
	borrowed bool
	// alias: the other has the other colour, has left discovery and is not proven to hold
	// nothing. Until it is, the process is that one, and gets neither new connections nor
	// orders under this name.
	alias bool
}

// twins is what the members in discovery share, by key.
func (s *situation) twins() map[discovery.InstanceID]twin {
	var out map[discovery.InstanceID]twin
	for _, shared := range s.seen.Fleet.Twins {
		if out == nil {
			out = map[discovery.InstanceID]twin{}
		}
		// Who stands for itself already as a second has nothing of its own to share.
		of := slices.DeleteFunc(slices.Clone(shared.IDs), func(id discovery.InstanceID) bool {
			m, known := s.state.Members[id]
			return !known || !m.Departed.IsZero() || out[id].second
		})
		if len(of) < 2 {
			continue
		}
		colour := func(id discovery.InstanceID) discovery.Colour { return s.state.Members[id].Colour }
		if other := slices.IndexFunc(of, func(id discovery.InstanceID) bool { return colour(id) != colour(of[0]) }); other > 0 {
			for _, id := range of {
				with := of[0]
				if colour(id) == colour(with) {
					with = of[other]
				}
				if !out[id].rival {
					out[id] = twin{with: with, shares: shared.String(), rival: true}
				}
			}
			continue
		}
		first := s.standsFor(shared, of)
		for _, id := range of {
			if id != first && out[id] == (twin{}) {
				out[id] = twin{with: first, shares: shared.String(), second: shared.Drain == "", borrowed: shared.Drain != ""}
			}
		}
	}
	return aliases(s, out)
}

// aliases adds who shares its drain endpoint with a member of the other colour that has left
// discovery and may hold connections, unless another process answers there since.
func aliases(s *situation, out map[discovery.InstanceID]twin) map[discovery.InstanceID]twin {
	departed := map[string]discovery.InstanceID{}
	for key, m := range s.state.Members {
		sight := s.seen.Instances[key]
		if m.Departed.IsZero() || m.Drain == "" || m.Doubted || sight.Err == "" && !sight.At.IsZero() && sight.Status.Held() == 0 {
			continue
		}
		if was, ok := departed[m.Drain]; !ok || key < was {
			departed[m.Drain] = key
		}
	}
	if len(departed) == 0 {
		return out
	}
	for key, m := range s.state.Members {
		with, shares := departed[m.Drain]
		if !shares || !m.Departed.IsZero() || s.state.Members[with].Colour == m.Colour || out[key].rival || succeeded(s, with) {
			continue
		}
		if out == nil {
			out = map[discovery.InstanceID]twin{}
		}
		out[key] = twin{with: with, shares: discovery.Twins{Drain: m.Drain}.String(), alias: true}
	}
	return out
}

// succeeded reports whether another process answers where a departed member did: one that
// was first heard after that had left.
func succeeded(s *situation, key discovery.InstanceID) bool {
	m, sight := s.state.Members[key], s.seen.Instances[key]
	return len(sight.Former) > 0 && sight.Since.After(m.Departed)
}

// standsFor is which of several registrations of one colour is taken for what they
// share: one that is counted already, that the endpoint has its host from, that serves;
// else the first.
func (s *situation) standsFor(shared discovery.Twins, of []discovery.InstanceID) discovery.InstanceID {
	host, err := netip.ParseAddr(hostOf(shared.Drain))
	rank := func(id discovery.InstanceID) int {
		m, n := s.state.Members[id], 0
		i, listed := slices.BinarySearchFunc(s.seen.Fleet.Instances, id, func(in discovery.Instance, id discovery.InstanceID) int { return cmp.Compare(in.ID, id) })
		for _, yes := range []bool{m.Counted, err == nil && m.Addr.Addr() == host, listed && s.seen.Fleet.Instances[i].Health.Serves()} {
			if n *= 2; !yes {
				n++
			}
		}
		return n
	}
	return slices.MinFunc(of, func(a, b discovery.InstanceID) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b)) })
}

func hostOf(drain string) string {
	u, err := url.Parse(drain)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// Doubles tells which members are counted with another, by key: both are one process.
func Doubles(s state.State, seen observed.Seen, now time.Time) map[discovery.InstanceID]discovery.InstanceID {
	out := map[discovery.InstanceID]discovery.InstanceID{}
	for _, f := range newSituation(s, seen, now).members().all {
		if f.twin.second || f.twin.alias {
			out[f.key] = f.twin.with
		}
	}
	return out
}

// aliasing says what is not believed of a member that is an alias.
func (f *fact) aliasing(s state.State) string {
	other := s.Members[f.twin.with]
	return fmt.Sprintf("%s (%s) has %s of %s, which left discovery as %s and is not proven empty; until it is, %s gets neither new connections nor orders", f.key, f.colour, f.twin.shares, f.twin.with, other.Colour, f.key)
}

func (f *fact) rivalry(s state.State) string {
	other := s.Members[f.twin.with]
	return fmt.Sprintf("%s (%s) and %s (%s) are registered with %s, so one of them is not what it says; deregister it, or give it its own",
		f.key, f.colour, f.twin.with, other.Colour, f.twin.shares)
}

// claimed says why an instance that discovery calls the colour's is not believed to be
// one; empty where there is none.
func (s *situation) claimed(c discovery.Colour) string {
	for _, f := range s.members().all {
		switch {
		case f.twin.rival:
			return f.rivalry(s.state)
		case f.twin.alias && f.colour == c:
			return f.aliasing(s.state)
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

// unread is why nothing at all is known of the service; nil when something is.
func (s *situation) unread() *blocker {
	if s.seen.Fleet.Unread == "" || len(s.state.Members) > 0 || s.state.Retired {
		return nil
	}
	return blocked(Unread, "%s was never read from discovery, so new connections get 503: %s", s.state.Service, s.seen.Fleet.Unread)
}

// Notes is what the owners of instances should mend: what discovery says of their
// registrations, and what does not fit what is known of their processes.
func Notes(s state.State, seen observed.Seen, now time.Time) []discovery.Note {
	view := newSituation(s, seen, now)
	out := append([]discovery.Note{}, seen.Fleet.Notes...)
	for _, f := range view.members().all {
		note := func(format string, args ...any) {
			out = append(out, discovery.Note{ID: f.key, Text: fmt.Sprintf(format, args...)})
		}
		switch {
		case f.recoloured:
			note("%s", f.recolouring())
		case f.twin.rival:
			note("%s has the other colour and %s, too; neither gets new connections or orders", f.twin.with, f.twin.shares)
		case f.twin.alias:
			note("%s left discovery as %s and is not proven empty; it is that one until then, and gets neither new connections nor orders as this", f.twin.with, f.colour.Other())
		case f.twin.second:
			note("%s has %s, too; both count once", f.twin.with, f.twin.shares)
		case f.twin.borrowed:
			note("%s has %s, too; it counts as the other's", f.twin.with, f.twin.shares)
		}
	}
	for _, c := range discovery.Colours {
		for _, f := range view.keptOpen(c) {
			if f.instance == nil {
				out = append(out, discovery.Note{ID: f.key, Text: "it is not in discovery any more and serves; it keeps new connections while no other of its colour takes them"})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b discovery.Note) int { return cmp.Compare(a.ID, b.ID) })
	return out
}
