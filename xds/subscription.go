package xds

import (
	"errors"
	"slices"
)

// dropUnasked forgets claims for what the proxy does not ask for.
func (h *holding) dropUnasked() {
	for name, e := range h.names.byName {
		if !h.wants(e) {
			e.held = nil
			h.names.tidy(name, e)
		}
	}
}

// subscribe is the delta protocol's way of asking. A name that is subscribed is
// answered even if the proxy holds it, except when it says so in the same breath.
func (h *holding) subscribe(first bool, names, not []string) error {
	if first && len(names) == 0 {
		h.startWildcard()
	}
	for _, name := range names {
		if name == "*" {
			h.startWildcard()
			continue
		}
		e := h.names.ensure(name)
		e.named = true
		if !first || e.held == nil {
			h.agenda.ask(name)
		}
	}
	for _, name := range not {
		if name == "*" {
			h.endWildcard()
			continue
		}
		h.names.ensure(name).named = false
		if h.wildcard {
			h.agenda.ask(name) // the protocol wants to hear whether the wildcard has it
		} else {
			h.drop(name)
		}
	}
	if h.tooMany() {
		return errors.New("too many resource names are subscribed")
	}
	if first {
		h.dropUnasked()
	}
	return nil
}

// tooMany reports whether the proxy asks for more than maxNames by name.
func (h *holding) tooMany() bool {
	if len(h.names.byName) <= maxNames {
		return false
	}
	named := 0
	for _, e := range h.names.byName {
		if e.named {
			named++
		}
	}
	return named > maxNames
}

// set is the state-of-the-world protocol's way of asking: always the whole list.
func (h *holding) set(first bool, names []string) error {
	if len(names) > maxNames {
		return errors.New("too many resource names are subscribed")
	}
	if len(names) == 0 && (first || h.unnamed) {
		h.unnamed = true
		h.startWildcard()
		return nil
	}
	h.unnamed = false
	wildcard := slices.Contains(names, "*")
	added, gone := h.rename(names)
	switch {
	case wildcard:
		h.startWildcard()
	case h.wildcard:
		h.endWildcard()
	}
	for _, name := range gone {
		if h.wildcard {
			h.names.tidy(name, h.names.byName[name])
		} else {
			h.drop(name)
		}
	}
	for _, name := range added {
		if !first || h.names.held(name) == nil {
			h.agenda.ask(name)
		}
	}
	if first {
		h.dropUnasked()
	}
	return nil
}

// rename makes names, but for the wildcard, the names that the proxy asks for, and
// returns those that were not among them before and those that no longer are.
func (h *holding) rename(names []string) (added, gone []string) {
	listed := make(map[string]struct{}, len(names))
	for _, name := range names {
		if name == "*" {
			continue
		}
		listed[name] = struct{}{}
		if e := h.names.ensure(name); !e.named {
			e.named = true
			added = append(added, name)
		}
	}
	for name, e := range h.names.byName {
		if _, ok := listed[name]; e.named && !ok {
			e.named = false
			gone = append(gone, name)
		}
	}
	return added, gone
}

// startWildcard makes the proxy one that asks for everything. It is answered even with
// nothing, unless it holds something and so has been answered before.
func (h *holding) startWildcard() {
	if h.wildcard {
		return
	}
	h.wildcard, h.seen = true, 0
	h.wildcardAsked = h.names.empty()
}

// endWildcard makes the proxy one that asks for names only.
func (h *holding) endWildcard() {
	h.wildcard, h.wildcardAsked = false, false
	for name, e := range h.names.byName {
		if e.held != nil && !e.named {
			h.drop(name)
		}
	}
}

// drop forgets a name that the proxy no longer asks for.
func (h *holding) drop(name string) {
	if e := h.names.byName[name]; e != nil {
		*e = e.dropped()
		h.names.tidy(name, e)
	}
	h.settle(name)
}
