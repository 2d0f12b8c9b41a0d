package xds

import (
	"errors"
	"iter"
	"maps"
	"slices"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// holding is what one proxy asks for, holds and is still to be told of one type.
// The peer's mutex guards it.
type holding struct {
	s       *Server
	p       *peer
	typeURL string
	owner   *stream // the stream that speaks for the type; nil when it has ended

	names         map[string]*entry
	wildcard      bool
	wildcardAsked bool // the wildcard must be answered even with nothing
	unnamed       bool // state-of-the-world: it has never named a resource
	foreign       bool // state-of-the-world: it holds something that it cannot name
	nack          *Nack

	seen    uint64   // the publish that the queue is complete for
	queue   []string // names to look at, without repetition
	waiting []string // to be looked at again after an acknowledgement, without repetition

	pending   map[string]*response // unacknowledged, by nonce
	lastNonce string               // of the newest response
}

func newHolding(s *Server, p *peer, typeURL string) *holding {
	return &holding{s: s, p: p, typeURL: typeURL, names: map[string]*entry{}, pending: map[string]*response{}}
}

// ensure finds or makes what is known of a name.
func (h *holding) ensure(name string) *entry {
	e := h.names[name]
	if e == nil {
		e = &entry{}
		h.names[name] = e
	}
	return e
}

// tidy forgets an entry that says nothing.
func (h *holding) tidy(name string, e *entry) {
	if *e == (entry{}) {
		delete(h.names, name)
	}
}

// reset replaces every entry by what is kept of it.
func (h *holding) reset(kept func(entry) entry) {
	for name, e := range h.names {
		*e = kept(*e)
		h.tidy(name, e)
	}
}

// held is the proxy's version of a resource, or nil.
func (h *holding) held(name string) *revision {
	if e := h.names[name]; e != nil {
		return e.held
	}
	return nil
}

func (h *holding) wants(e *entry) bool { return e.named || h.wildcard }

// sorted lists the names whose entries match, in order.
func (h *holding) sorted(match func(*entry) bool) []string {
	var names []string
	for name, e := range h.names {
		if match(e) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// disown forgets what was being said on a stream that no longer counts. What the
// proxy held and refused last stays known until it speaks again.
func (h *holding) disown() {
	h.owner, h.seen, h.wildcardAsked, h.lastNonce = nil, 0, false, ""
	h.queue, h.waiting = nil, nil
	clear(h.pending)
	h.reset(entry.disowned)
}

// begin hands the type to st, which asks for it for the first time and claims to
// hold some versions. A refused version gets another try: the proxy may have restarted.
func (h *holding) begin(st *stream, claims map[string]string) error {
	if len(claims) > maxNames {
		return errors.New("too many resources are claimed to be held")
	}
	h.disown()
	h.owner, h.wildcard, h.unnamed, h.foreign = st, false, false, false
	h.reset(entry.restarted)
	for _, name := range slices.Sorted(maps.Keys(h.names)) {
		h.add(name)
	}
	if len(h.names) == 0 {
		h.names = make(map[string]*entry, len(claims))
	}
	for name, version := range claims {
		h.ensure(name).held = &revision{Ref: resource.Ref{Type: h.typeURL, Name: name}, version: version}
	}
	return nil
}

// add has the name looked at.
func (h *holding) add(name string) {
	if e := h.ensure(name); !e.queued {
		e.queued = true
		h.queue = append(h.queue, name)
	}
}

// retry has everything that waits looked at again.
func (h *holding) retry() {
	if len(h.waiting) == 0 {
		return
	}
	slices.Sort(h.waiting)
	for _, name := range h.waiting {
		h.ensure(name).waiting = false
		h.add(name)
	}
	h.waiting = h.waiting[:0]
}

// inUse lists what the proxy holds, and what it may hold because its
// acknowledgement is on the way.
func (h *holding) inUse() iter.Seq[*revision] {
	return func(yield func(*revision) bool) {
		for _, e := range h.names {
			if e.held != nil && !yield(e.held) {
				return
			}
		}
		for _, r := range h.pending {
			for _, c := range r.changed {
				if !yield(c) {
					return
				}
			}
		}
	}
}

// withhold records why the proxy is not sent what it asks for; an empty why means
// that nothing is withheld.
func (h *holding) withhold(name string, e *entry, why string) {
	switch {
	case why == "" && e.withheld == nil, e.withheld != nil && e.withheld.Why == why:
		return
	case why == "":
		e.withheld = nil
	default:
		e.withheld = &Withheld{resource.Ref{Type: h.typeURL, Name: name}, why}
	}
	h.s.changed.Set()
}
