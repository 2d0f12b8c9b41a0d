package xds

import (
	"slices"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// inventory is what one proxy holds of one type, and what else is known of each name.
// The peer's mutex guards it.
type inventory struct {
	byName map[string]*entry
	// foreign: state-of-the-world: the proxy holds something that it cannot name.
	foreign bool
}

// ensure finds or makes what is known of a name.
func (v *inventory) ensure(name string) *entry {
	e := v.byName[name]
	if e == nil {
		e = &entry{}
		v.byName[name] = e
	}
	return e
}

// tidy forgets an entry that says nothing.
func (v *inventory) tidy(name string, e *entry) {
	if *e == (entry{}) {
		delete(v.byName, name)
	}
}

// reset replaces every entry by what is kept of it.
func (v *inventory) reset(kept func(entry) entry) {
	for name, e := range v.byName {
		*e = kept(*e)
		v.tidy(name, e)
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

// claim makes held what the proxy says it holds, with versions by name. Their bodies are
// not known here.
func (v *inventory) claim(typeURL string, versions map[string]string, foreign bool) {
	v.foreign = foreign
	if len(v.byName) == 0 {
		v.byName = make(map[string]*entry, len(versions))
	}
	for name, version := range versions {
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
