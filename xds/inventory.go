package xds

import (
	"slices"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// inventory is what one proxy holds of one type, and what else is known of each name.
// The peer's mutex guards it, but for entries that many share.
type inventory struct {
	byName map[string]*entry
	// foreign: state-of-the-world: the proxy holds something that it cannot name.
	foreign bool
}

// ensure finds or makes what is known of a name, to be changed: tidy it then.
func (v *inventory) ensure(name string) *entry {
	e := v.byName[name]
	switch {
	case e == nil:
		e = &entry{}
		v.byName[name] = e
	case e.shared():
		e = new(*e)
		v.byName[name] = e
	}
	return e
}

// name marks what the proxy asks for by name.
func (v *inventory) name(name string) *entry {
	if e := v.byName[name]; e != nil && e.shared() {
		e = &e.held.settled[1]
		v.byName[name] = e
		return e
	}
	e := v.ensure(name)
	e.named = true
	return e
}

// tidy forgets an entry that says nothing, and shares one that says what those of others do.
func (v *inventory) tidy(name string, e *entry) {
	switch {
	case *e == (entry{}):
		delete(v.byName, name)
	case e.held == nil || e.shared():
	case *e == e.held.settled[0]:
		v.byName[name] = &e.held.settled[0]
	case *e == e.held.settled[1]:
		v.byName[name] = &e.held.settled[1]
	}
}

// reset replaces every entry by what is kept of it.
func (v *inventory) reset(kept func(entry) entry) {
	for name, e := range v.byName {
		if next := kept(*e); next != *e {
			v.byName[name] = &next
			v.tidy(name, &next)
		}
	}
}

// held is the proxy's version of a resource, or nil.
func (v *inventory) held(name string) *revision {
	if e := v.byName[name]; e != nil {
		return e.held
	}
	return nil
}

// has reports whether the proxy has some version of a resource for sure.
func (v *inventory) has(name string) bool {
	e := v.byName[name]
	return e != nil && e.held != nil && !e.maybeGone
}

// sorted lists the names whose entries match, in order.
func (v *inventory) sorted(match func(*entry) bool) []string {
	var names []string
	for name, e := range v.byName {
		if match(e) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// claim makes held what the proxy says it holds, with versions by name. The bodies of those
// that are not in set are not known here.
func (v *inventory) claim(set *typeSet, typeURL string, versions map[string]string, foreign bool) {
	v.foreign = foreign
	if len(v.byName) == 0 {
		v.byName = make(map[string]*entry, len(versions))
	}
	for name, version := range versions {
		if r := set.byName[name]; r != nil && r.version == version && v.byName[name] == nil {
			v.byName[r.Name] = &r.settled[0]
			continue
		}
		v.ensure(name).held = &revision{Ref: resource.Ref{Type: typeURL, Name: name}, version: version}
	}
}

// empty reports whether the proxy holds nothing.
func (v *inventory) empty() bool {
	if v.foreign {
		return false
	}
	for _, e := range v.byName {
		if e.held != nil {
			return false
		}
	}
	return true
}
