package xds

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/xds/resource"
)

const (
	// maxMessage bounds what is kept of a refusal, in bytes.
	maxMessage = 4 << 10
	// A refused resource is sent again after firstRetry, then after twice as long each
	// time, up to lastRetry: the cause may lie outside of it.
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// refuse records the refusal. Of several resources nobody knows which one was
// meant and what became of the others, so each is sent once more, alone, and may be
// in use until then; a single one is sent again later.
func (h *holding) refuse(r *response, message string) {
	names := r.names()
	h.p.nackCount++
	n := &Nack{Type: h.typeURL, Message: message[:min(len(message), maxMessage)], At: time.Now()}
	if len(r.changed) > 0 {
		n.Version = r.changed[0].version
	}
	if h.says(names, n.Message) {
		h.s.log.Warn("proxy refused a response", "node", h.p.node, "type", resource.Kind(h.typeURL), "names", names, "message", n.Message)
	}
	for _, name := range names {
		if h.subscription.wants(h.names.byName[name]) {
			h.nacks[name] = n
		}
	}
	switch {
	case len(names) == 0:
		h.nacks[""] = n
	case len(names) > 1:
		for _, c := range r.changed {
			h.names.byName[c.Name].maybe = c
		}
		for _, name := range r.removed {
			h.names.byName[name].maybeGone = true
		}
		for _, name := range names {
			if e := h.names.byName[name]; h.subscription.wants(e) {
				e.isolated = true
				h.agenda.ask(name)
			}
		}
	case len(r.changed) == 1:
		c := r.changed[0]
		e := h.names.byName[c.Name]
		e.refused = c
		if e.maybe != nil && e.maybe.version == c.version {
			e.maybe = nil
		}
		h.retryLater(c, e)
	}
}

// says reports whether the refusal of these names with this message is news.
func (h *holding) says(names []string, message string) bool {
	for _, name := range names {
		if last := h.nacks[name]; last == nil || last.Message != message {
			return true
		}
	}
	return len(names) == 0
}

// retryLater has a refused resource sent again, unless the proxy has spoken on another
// stream or something newer is published until then.
func (h *holding) retryLater(c *revision, e *entry) {
	owner, wait := h.owner, min(lastRetry, firstRetry<<min(e.tries, 10))
	e.tries++
	time.AfterFunc(wait, func() {
		h.p.mu.Lock()
		defer h.p.mu.Unlock()
		if e := h.names.byName[c.Name]; h.owner == owner && owner != nil && e != nil && e.refused == c {
			e.isolated = true
			h.agenda.ask(c.Name)
			owner.wake.Set()
		}
	})
}

// varied is the revision in other bytes, if it was refused and the proxy would take the same
// ones for no change. Two tries after another differ.
func (h *holding) varied(r *revision, e *entry) *revision {
	vary := h.s.vary[h.typeURL]
	if vary == nil || e.tries == 0 {
		return r
	}
	other := &revision{Ref: r.Ref, version: r.version, after: r.after, keep: r.keep, envelope: proto.CloneOf(r.envelope)}
	other.envelope.Resource.Value = vary(other.envelope.Resource.Value, 1+e.tries%2)
	return other
}

// Retry sends everything that proxies refused once more, now: its cause may be mended.
func (s *Server) Retry() {
	for _, p := range s.peers() {
		p.mu.Lock()
		for _, h := range p.types {
			if h.owner == nil {
				continue
			}
			for _, name := range h.names.sorted(func(e *entry) bool { return e.refused != nil }) {
				e := h.names.byName[name]
				e.tries, e.isolated = e.tries%2, true // soon again, and in other bytes
				h.agenda.ask(name)
			}
			h.owner.wake.Set()
		}
		p.mu.Unlock()
	}
}

// settle takes a name off what is refused.
func (h *holding) settle(name string) {
	if h.nacks[name] != nil {
		delete(h.nacks, name)
		h.s.changed.Set()
	}
}

// review settles the refusals from before the proxy connected again that its subscription and
// what it claims to hold have settled.
func (h *holding) review(set *typeSet) {
	for _, name := range slices.Sorted(maps.Keys(h.nacks)) {
		var held *revision
		e, r := h.names.byName[name], h.p.told(set.byName[name])
		if e != nil {
			held = e.held
		}
		switch {
		case name == "":
		case !h.subscription.wildcard && (e == nil || !e.named), r == nil && held == nil,
			r != nil && held != nil && held.version == r.version:
			h.settle(name)
		}
	}
}

// refusals lists what stands of the refusals, the newest first.
func (h *holding) refusals() []Nack {
	names := map[*Nack][]string{}
	for name, n := range h.nacks {
		if name == "" {
			names[n] = nil
		} else {
			names[n] = append(names[n], name)
		}
	}
	out := make([]Nack, 0, len(names))
	for n, of := range names {
		one := *n
		slices.Sort(of)
		one.Names = of
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b Nack) int { return cmp.Or(b.At.Compare(a.At), slices.Compare(a.Names, b.Names)) })
	return out
}
