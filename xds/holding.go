package xds

import (
	"errors"
	"iter"
	"maps"
	"slices"
	"time"
)

const (
	// window is how many responses of a one-per-response type may be
	// unacknowledged at a time in the delta protocol: so the round trip does not
	// bound how fast a proxy starts. Every other type and protocol has one.
	window = 16
	// maxMessage bounds what is kept of a refusal, in bytes.
	maxMessage = 4 << 10
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

// entry finds or makes what is known of a name.
func (h *holding) entry(name string) *entry {
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
func (h *holding) held(name string) *Resource {
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
		h.entry(name).held = &Resource{Ref: Ref{h.typeURL, name}, Version: version}
	}
	return nil
}

// dropUnasked forgets claims for what the proxy does not ask for.
func (h *holding) dropUnasked() {
	for name, e := range h.names {
		if !h.wants(e) {
			e.held = nil
			h.tidy(name, e)
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
		e := h.entry(name)
		e.named = true
		if !first || e.held == nil {
			h.ask(name)
		}
	}
	for _, name := range not {
		if name == "*" {
			h.endWildcard()
			continue
		}
		h.entry(name).named = false
		if h.wildcard {
			h.ask(name) // the protocol wants to hear whether the wildcard has it
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
	if len(h.names) <= maxNames {
		return false
	}
	named := 0
	for _, e := range h.names {
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
			h.tidy(name, h.names[name])
		} else {
			h.drop(name)
		}
	}
	for _, name := range added {
		if !first || h.held(name) == nil {
			h.ask(name)
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
	now := make(map[string]struct{}, len(names))
	for _, name := range names {
		if name == "*" {
			continue
		}
		now[name] = struct{}{}
		if e := h.entry(name); !e.named {
			e.named = true
			added = append(added, name)
		}
	}
	for name, e := range h.names {
		if _, ok := now[name]; e.named && !ok {
			e.named = false
			gone = append(gone, name)
		}
	}
	return added, gone
}

// startWildcard: a proxy that holds something has been answered before.
func (h *holding) startWildcard() {
	if h.wildcard {
		return
	}
	h.wildcard, h.seen = true, 0
	h.wildcardAsked = !h.foreign
	for _, e := range h.names {
		if e.held != nil {
			h.wildcardAsked = false
		}
	}
}

// endWildcard leaves the proxy what it asks for by name.
func (h *holding) endWildcard() {
	h.wildcard, h.wildcardAsked = false, false
	for name, e := range h.names {
		if e.held != nil && !e.named {
			h.drop(name)
		}
	}
}

// ask has the name answered, whatever the proxy holds or refused.
func (h *holding) ask(name string) {
	e := h.entry(name)
	e.asked, e.refused = true, nil
	h.add(name)
}

// drop forgets a name that the proxy no longer asks for.
func (h *holding) drop(name string) {
	if e := h.names[name]; e != nil {
		*e = e.dropped()
		h.tidy(name, e)
	}
	h.settle(name)
}

// add has the name looked at.
func (h *holding) add(name string) {
	if e := h.entry(name); !e.queued {
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
		h.entry(name).waiting = false
		h.add(name)
	}
	h.waiting = h.waiting[:0]
}

// inUse lists what the proxy holds, and what it may hold because its
// acknowledgement is on the way.
func (h *holding) inUse() iter.Seq[*Resource] {
	return func(yield func(*Resource) bool) {
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

// answer takes the proxy's answer to the response with this nonce, if there is one;
// message is why it was refused.
func (h *holding) answer(nonce, message string, refused bool) {
	r := h.pending[nonce]
	if r == nil {
		return // stale, or a change of the subscription only
	}
	delete(h.pending, nonce)
	names := r.names()
	for _, name := range names {
		e := h.names[name]
		e.pending, e.repeated = false, false
	}
	if refused {
		h.refuse(r, message)
	} else {
		h.accept(r)
	}
	for _, name := range names {
		if e := h.names[name]; e != nil {
			h.tidy(name, e)
		}
	}
	h.p.retry(h.owner)
}

func (h *holding) accept(r *response) {
	for _, c := range r.changed {
		if e := h.names[c.Name]; h.wants(e) && e.held != c { // a repetition settles nothing
			e.held, e.refused = c, nil
			h.settle(c.Name)
		}
	}
	for _, name := range r.removed {
		h.names[name].held = nil
		h.settle(name)
	}
	if h.nack != nil && len(h.nack.Names) == 0 {
		h.nack = nil
	}
}

// refuse records the refusal. Of several resources nobody knows which one was
// meant and what became of the others, so each is sent once more, alone; a single
// one is not sent again before its content changes.
func (h *holding) refuse(r *response, message string) {
	names := r.names()
	h.p.nackCount++
	h.nack = &Nack{Type: h.typeURL, Names: slices.Clone(names), Message: message[:min(len(message), maxMessage)], At: time.Now()}
	if len(r.changed) > 0 {
		h.nack.Version = r.changed[0].Version
	}
	h.s.log.Warn("proxy refused a response", "node", h.p.node, "type", kind(h.typeURL), "names", names, "message", h.nack.Message)
	if len(names) > 1 {
		for _, name := range names {
			if e := h.names[name]; h.wants(e) {
				e.alone = true
				h.ask(name)
			}
		}
		return
	}
	for _, c := range r.changed {
		h.names[c.Name].refused = c
	}
}

// agree records that the proxy holds what is published of a name: r, or nil for
// nothing. From now on the body of what it holds is known.
func (h *holding) agree(name string, e *entry, r *Resource) {
	e.held, e.refused = r, nil
	h.settle(name)
}

// settle takes a name off the newest refusal.
func (h *holding) settle(name string) {
	if h.nack == nil || !slices.Contains(h.nack.Names, name) {
		return
	}
	h.nack.Names = slices.DeleteFunc(h.nack.Names, func(n string) bool { return n == name })
	if len(h.nack.Names) == 0 {
		h.nack = nil
	}
	h.s.notify()
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
		e.withheld = &Withheld{Ref{h.typeURL, name}, why}
	}
	h.s.notify()
}
