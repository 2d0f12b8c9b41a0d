package xds

import (
	"errors"
	"slices"
)

// subscription is what one proxy asks for of one type: names, which the inventory marks,
// or everything. The agenda gets what is to be answered. The peer's mutex guards it.
type subscription struct {
	names  *inventory
	agenda *agenda

	wildcard      bool
	wildcardAsked bool   // the wildcard must be answered even with nothing
	unnamed       bool   // state-of-the-world: the proxy has never named a resource
	seen          uint64 // the publish that the agenda is complete for; 0 has everything compared
}

func (s *subscription) wants(e *entry) bool { return e.named || s.wildcard }

// subscribe is the delta protocol's way of asking. A name that is subscribed is
// answered even if the proxy holds it, except when it says so in the same breath. It
// returns the names that are forgotten.
func (s *subscription) subscribe(first bool, names, not []string) (forgotten []string, err error) {
	if first && len(names) == 0 {
		s.startWildcard()
	}
	for _, name := range names {
		if name == "*" {
			s.startWildcard()
			continue
		}
		e := s.names.name(name)
		if !first || e.held == nil {
			s.agenda.ask(name)
		}
	}
	for _, name := range not {
		if name == "*" {
			forgotten = append(forgotten, s.endWildcard()...)
			continue
		}
		s.names.ensure(name).named = false
		if s.wildcard {
			s.agenda.ask(name) // the protocol wants to hear whether the wildcard has it
		} else {
			s.drop(name)
			forgotten = append(forgotten, name)
		}
	}
	if s.tooMany() {
		return forgotten, errors.New("too many resource names are subscribed")
	}
	if first {
		s.dropUnasked()
	}
	return forgotten, nil
}

// tooMany reports whether the proxy asks for more than maxNames by name.
func (s *subscription) tooMany() bool {
	if len(s.names.byName) <= maxNames {
		return false
	}
	named := 0
	for _, e := range s.names.byName {
		if e.named {
			named++
		}
	}
	return named > maxNames
}

// set is the state-of-the-world protocol's way of asking: always the whole list. It
// returns the names that are forgotten.
func (s *subscription) set(first bool, names []string) (forgotten []string, err error) {
	if len(names) > maxNames {
		return nil, errors.New("too many resource names are subscribed")
	}
	if len(names) == 0 && (first || s.unnamed) {
		s.unnamed = true
		s.startWildcard()
		return nil, nil
	}
	s.unnamed = false
	wildcard := slices.Contains(names, "*")
	added, gone := s.rename(names)
	switch {
	case wildcard:
		s.startWildcard()
	case s.wildcard:
		forgotten = s.endWildcard()
	}
	for _, name := range gone {
		if s.wildcard {
			s.names.tidy(name, s.names.byName[name])
		} else {
			s.drop(name)
			forgotten = append(forgotten, name)
		}
	}
	for _, name := range added {
		if !first || s.names.held(name) == nil {
			s.agenda.ask(name)
		}
	}
	if first {
		s.dropUnasked()
	}
	return forgotten, nil
}

// rename makes names, but for the wildcard, the names that the proxy asks for, and
// returns those that were not among them before and those that no longer are.
func (s *subscription) rename(names []string) (added, gone []string) {
	listed := make(map[string]struct{}, len(names))
	for _, name := range names {
		if name == "*" {
			continue
		}
		listed[name] = struct{}{}
		if e := s.names.byName[name]; e == nil || !e.named {
			s.names.name(name)
			added = append(added, name)
		}
	}
	for name, e := range s.names.byName {
		if _, ok := listed[name]; e.named && !ok {
			s.names.ensure(name).named = false
			gone = append(gone, name)
		}
	}
	return added, gone
}

// startWildcard makes the proxy one that asks for everything. It is answered even with
// nothing, unless it holds something and so has been answered before.
func (s *subscription) startWildcard() {
	if s.wildcard {
		return
	}
	s.wildcard, s.seen = true, 0
	s.wildcardAsked = s.names.empty()
}

// endWildcard makes the proxy one that asks for names only, and returns the others that
// it held. They are forgotten.
func (s *subscription) endWildcard() (forgotten []string) {
	s.wildcard, s.wildcardAsked = false, false
	for name, e := range s.names.byName {
		if (e.held != nil || e.maybe != nil) && !e.named {
			s.drop(name)
			forgotten = append(forgotten, name)
		}
	}
	return forgotten
}

// dropUnasked forgets claims for what the proxy does not ask for.
func (s *subscription) dropUnasked() {
	for name, e := range s.names.byName {
		if !s.wants(e) {
			e = s.names.ensure(name)
			e.held = nil
			e.answered()
			s.names.tidy(name, e)
		}
	}
}

// catchUp queues what was published of the type since the last time. It costs the number of
// changes, not of names, unless the proxy is new or far behind; true then: all were compared.
func (s *subscription) catchUp(snap *snapshot, typeURL string) (all bool) {
	if s.seen == snap.seq {
		return false
	}
	set := snap.of(typeURL)
	changes, ok := set.since(s.seen)
	ok = ok && s.seen > 0
	s.seen = snap.seq
	if !ok {
		s.compare(set)
		return true
	}
	for _, c := range changes {
		if e := s.names.byName[c.name]; s.wildcard || e != nil && e.named {
			s.agenda.add(c.name)
		}
	}
	return false
}

// compare queues everything that the proxy does not hold as it is published.
func (s *subscription) compare(set *typeSet) {
	names := set.names
	if !s.wildcard {
		names = s.names.sorted(func(e *entry) bool { return e.named })
	}
	for _, name := range names {
		r, have := set.byName[name], s.names.held(name)
		switch {
		case r != nil && have != nil && r.version == have.version:
			if have != r {
				e := s.names.ensure(name)
				e.held = r
				s.names.tidy(name, e)
			}
			r.prove()
		case r != nil || have != nil:
			s.agenda.add(name)
		}
	}
	for _, name := range s.names.sorted(func(e *entry) bool { return e.held != nil }) {
		if set.byName[name] == nil {
			s.agenda.add(name)
		}
	}
}

// drop forgets a name that the proxy no longer asks for.
func (s *subscription) drop(name string) {
	if s.names.byName[name] != nil {
		e := s.names.ensure(name)
		*e = e.dropped()
		s.names.tidy(name, e)
	}
}
