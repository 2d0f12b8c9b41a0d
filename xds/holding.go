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

	names        inventory
	agenda       agenda
	subscription subscription
	flight       flight
	all          bool             // the stream before asked for everything
	nacks        map[string]*Nack // what is refused and not settled, by name; "": nameless
}

func newHolding(s *Server, p *peer, typeURL string) *holding {
	h := &holding{
		s: s, p: p, typeURL: typeURL,
		names: inventory{byName: map[string]*entry{}}, nacks: map[string]*Nack{}, flight: flight{pending: map[string]*response{}},
	}
	h.disown()
	return h
}

// disown forgets what was being said on a stream that no longer counts. What the
// proxy held and refused last stays known until it speaks again.
func (h *holding) disown() {
	h.all = h.everything()
	h.owner = nil
	h.agenda = agenda{names: &h.names}
	h.subscription = subscription{names: &h.names, agenda: &h.agenda}
	h.flight.clear()
	h.names.reset(entry.disowned)
}

// everything reports whether the proxy asks for all resources of the type, or did when it
// spoke last.
func (h *holding) everything() bool {
	if h.owner == nil {
		return h.all
	}
	return h.subscription.wildcard
}

// begin hands the type to st, which asks for it for the first time and claims to
// hold some versions; foreign: also what it cannot name. A refused version gets
// another try: the proxy may have restarted.
func (h *holding) begin(st *stream, claims map[string]string, foreign bool) error {
	if len(claims) > maxNames {
		return errors.New("too many resources are claimed to be held")
	}
	h.disown()
	h.owner = st
	h.names.reset(entry.restarted)
	for _, name := range slices.Sorted(maps.Keys(h.names.byName)) {
		h.agenda.add(name)
	}
	h.names.claim(h.published(), h.typeURL, claims, foreign)
	return nil
}

// subscribe takes over what the request asks for. A refusal of what is forgotten counts
// no more.
func (h *holding) subscribe(first bool, r request) error {
	var forgotten []string
	var err error
	defer h.spread(len(h.agenda.queue))
	set := h.published()
	for _, names := range [][]string{r.names, r.subscribe} { // names are shared with what is published
		for i, name := range names {
			if known := set.byName[name]; known != nil {
				names[i] = known.Name
			}
		}
	}
	if h.owner.protocol.wholeState() {
		forgotten, err = h.subscription.set(first, r.names)
	} else {
		forgotten, err = h.subscription.subscribe(first, r.subscribe, r.unsubscribe)
	}
	for _, name := range forgotten {
		h.settle(name)
	}
	return err
}

// published is what is published of the type now.
func (h *holding) published() *typeSet {
	if snap := h.s.snapshot.Load(); snap != nil {
		return snap.of(h.typeURL)
	}
	return emptySet
}

// catchUp queues what was published since the last time.
func (h *holding) catchUp(snap *snapshot) {
	defer h.spread(len(h.agenda.queue))
	if h.subscription.catchUp(snap, h.typeURL) {
		h.review(snap.of(h.typeURL))
	}
}

// spread has proxies begin at different names, when the agenda, which had so many, has got more
// than can be on their way: what one has acknowledged, the others are sent together.
func (h *holding) spread(had int) {
	if len(h.agenda.queue)-had > window && h.s.onePerResponse[h.typeURL] {
		h.agenda.turn(h.p.place)
	}
}

// inUse lists what the proxy holds, and what it may hold because its
// acknowledgement is on the way, or because it refused only a part of a response.
func (h *holding) inUse() iter.Seq[*revision] {
	return func(yield func(*revision) bool) {
		for _, e := range h.names.byName {
			if e.held != nil && !yield(e.held) || e.maybe != nil && !yield(e.maybe) {
				return
			}
		}
		for _, r := range h.flight.pending {
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
