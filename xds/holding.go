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

	// What it asks for.
	wildcard bool
	unnamed  bool // state-of-the-world: it has never named a resource
	names    map[string]struct{}
	asked    map[string]struct{} // must be answered even if it holds the same, or if there is none
	greet    bool                // the wildcard must be answered even with nothing

	// What it holds and refused.
	held    map[string]*Resource // without a Body: a version that is not known here
	foreign bool                 // state-of-the-world: it holds something that it cannot name
	refused map[string]string    // name → version
	nack    *Nack

	// What it is to be told.
	seen     uint64              // the publish that the queue is complete for
	queue    []string            // names to look at, without repetition
	queued   map[string]struct{} // the same
	waiting  map[string]struct{} // to be looked at again after an acknowledgement
	alone    map[string]struct{} // were part of a refused response: go alone
	again    map[string]uint64   // must be sent again after another type's; value: which mark
	withheld map[string]string   // name → why

	flight  map[string]*letter // unacknowledged, by nonce
	flying  map[string]struct{}
	lastOne string // nonce of the newest letter
}

// letter is one response: what it changes, and what it says.
type letter struct {
	nonce   string
	changed []*Resource
	removed []string
	all     []*Resource // state-of-the-world: everything the response has to contain; else nil
	marks   map[string]uint64
}

func (l *letter) names() []string {
	names := make([]string, 0, len(l.changed)+len(l.removed))
	for _, r := range l.changed {
		names = append(names, r.Name)
	}
	return append(names, l.removed...)
}

func newHolding(s *Server, p *peer, typeURL string) *holding {
	return &holding{
		s: s, p: p, typeURL: typeURL,
		names: map[string]struct{}{}, asked: map[string]struct{}{},
		held: map[string]*Resource{}, refused: map[string]string{},
		queued: map[string]struct{}{}, waiting: map[string]struct{}{}, alone: map[string]struct{}{},
		again: map[string]uint64{}, withheld: map[string]string{},
		flight: map[string]*letter{}, flying: map[string]struct{}{},
	}
}

// disown forgets what was being said on a stream that no longer counts. What the
// proxy held and refused last stays known until it speaks again.
func (h *holding) disown() {
	h.owner, h.seen, h.greet, h.lastOne = nil, 0, false, ""
	h.queue = nil
	clear(h.queued)
	clear(h.waiting)
	clear(h.asked)
	clear(h.alone)
	clear(h.withheld)
	clear(h.flight)
	clear(h.flying)
}

// begin hands the type to st, which asks for it for the first time and claims to
// hold some versions. A refused version gets another try: the proxy may have restarted.
func (h *holding) begin(st *stream, claims map[string]string) error {
	if len(claims) > maxNames {
		return errors.New("too many resources are claimed to be held")
	}
	h.disown()
	h.owner, h.wildcard, h.unnamed, h.foreign = st, false, false, false
	clear(h.names)
	clear(h.held)
	clear(h.refused)
	for name, version := range claims {
		h.held[name] = &Resource{Ref: Ref{h.typeURL, name}, Version: version}
	}
	for _, name := range slices.Sorted(maps.Keys(h.again)) {
		h.add(name)
	}
	return nil
}

// dropUnasked forgets claims for what the proxy does not ask for.
func (h *holding) dropUnasked() {
	maps.DeleteFunc(h.held, func(name string, _ *Resource) bool { return !h.wants(name) })
}

func (h *holding) wants(name string) bool {
	_, ok := h.names[name]
	return ok || h.wildcard
}

// subscribe is the delta protocol's way of asking. A name that is subscribed is
// answered even if the proxy holds it, except when it says so in the same breath.
func (h *holding) subscribe(first bool, names, not []string) error {
	if first && len(names) == 0 {
		h.wild()
	}
	for _, name := range names {
		if name == "*" {
			h.wild()
			continue
		}
		h.names[name] = struct{}{}
		if !first || h.held[name] == nil {
			h.ask(name)
		}
	}
	for _, name := range not {
		if name == "*" {
			h.tame()
			continue
		}
		delete(h.names, name)
		if h.wildcard {
			h.ask(name) // the protocol wants to hear whether the wildcard has it
		} else {
			h.drop(name)
		}
	}
	if len(h.names) > maxNames {
		return errors.New("too many resource names are subscribed")
	}
	if first {
		h.dropUnasked()
	}
	return nil
}

// set is the state-of-the-world protocol's way of asking: always the whole list.
func (h *holding) set(first bool, names []string) error {
	if len(names) > maxNames {
		return errors.New("too many resource names are subscribed")
	}
	if len(names) == 0 && (first || h.unnamed) {
		h.unnamed = true
		h.wild()
		return nil
	}
	h.unnamed = false
	old := h.names
	h.names = make(map[string]struct{}, len(names))
	for _, name := range names {
		if name != "*" {
			h.names[name] = struct{}{}
		}
	}
	if slices.Contains(names, "*") {
		h.wild()
	} else if h.wildcard {
		h.tame()
	}
	for name := range old {
		if !h.wants(name) {
			h.drop(name)
		}
	}
	for _, name := range names {
		if _, had := old[name]; !had && name != "*" && (!first || h.held[name] == nil) {
			h.ask(name)
		}
	}
	if first {
		h.dropUnasked()
	}
	return nil
}

// wild starts the wildcard. A proxy that holds something has been greeted before.
func (h *holding) wild() {
	if h.wildcard {
		return
	}
	h.wildcard, h.seen = true, 0
	h.greet = len(h.held) == 0 && !h.foreign
}

// tame ends the wildcard.
func (h *holding) tame() {
	h.wildcard, h.greet = false, false
	for name := range maps.Clone(h.held) {
		if !h.wants(name) {
			h.drop(name)
		}
	}
	h.dropUnasked()
}

func (h *holding) ask(name string) {
	h.asked[name] = struct{}{}
	delete(h.refused, name)
	h.add(name)
}

// drop forgets a name that the proxy no longer asks for.
func (h *holding) drop(name string) {
	delete(h.held, name)
	delete(h.refused, name)
	delete(h.asked, name)
	delete(h.alone, name)
	delete(h.again, name)
	delete(h.withheld, name)
	h.settle(name)
}

// add has the name looked at.
func (h *holding) add(name string) {
	if _, ok := h.queued[name]; !ok {
		h.queued[name] = struct{}{}
		h.queue = append(h.queue, name)
	}
}

// retry has everything that waits looked at again.
func (h *holding) retry() {
	if len(h.waiting) == 0 {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(h.waiting)) {
		h.add(name)
	}
	clear(h.waiting)
}

// inUse lists what the proxy holds, and what it may hold because its
// acknowledgement is on the way.
func (h *holding) inUse() iter.Seq[*Resource] {
	return func(yield func(*Resource) bool) {
		for _, r := range h.held {
			if !yield(r) {
				return
			}
		}
		for _, l := range h.flight {
			for _, r := range l.changed {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// answer takes the proxy's answer to the letter with this nonce, if there is one;
// message is empty for an acknowledgement.
func (h *holding) answer(nonce, message string, refused bool) {
	l := h.flight[nonce]
	if l == nil {
		return // stale, or a change of the subscription only
	}
	delete(h.flight, nonce)
	for _, name := range l.names() {
		delete(h.flying, name)
		if mark, ok := l.marks[name]; ok && h.again[name] == mark {
			delete(h.again, name)
		}
	}
	if refused {
		h.refuse(l, message)
	} else {
		h.accept(l)
	}
	h.p.retry(h.owner)
}

func (h *holding) accept(l *letter) {
	for _, r := range l.changed {
		if h.wants(r.Name) && h.held[r.Name] != r { // a repetition settles nothing
			h.held[r.Name] = r
			delete(h.refused, r.Name)
			h.settle(r.Name)
		}
	}
	for _, name := range l.removed {
		delete(h.held, name)
		h.settle(name)
	}
	if h.nack != nil && len(h.nack.Names) == 0 {
		h.nack = nil
	}
}

// refuse records the refusal. Of several resources nobody knows which one was
// meant and what became of the others, so each is sent once more, alone; a single
// one is not sent again before its content changes.
func (h *holding) refuse(l *letter, message string) {
	names := l.names()
	h.p.nackCount++
	h.nack = &Nack{Type: h.typeURL, Names: slices.Clone(names), Message: message[:min(len(message), maxMessage)], At: time.Now()}
	if len(l.changed) > 0 {
		h.nack.Version = l.changed[0].Version
	}
	h.s.log.Warn("proxy refused a response", "node", h.p.node, "type", kind(h.typeURL), "names", names, "message", h.nack.Message)
	if len(names) > 1 {
		for _, name := range names {
			if h.wants(name) {
				h.alone[name] = struct{}{}
				h.ask(name)
			}
		}
		return
	}
	for _, r := range l.changed {
		h.refused[r.Name] = r.Version
	}
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
