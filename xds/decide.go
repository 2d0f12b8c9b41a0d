package xds

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
)

func (r *Resource) needs(ref Ref) bool { return slices.Contains(r.After, ref) }

// verdict is what happens to one name now.
type verdict int

const (
	nothing verdict = iota // until its content changes
	wait                   // until an acknowledgement
	send
	repeat // what it holds
	remove
)

// empty is what is published of a type that never was.
var empty = &typeSet{}

func (p *published) of(typeURL string) *typeSet {
	if t := p.types[typeURL]; t != nil {
		return t
	}
	return empty
}

// whole reports whether a response has to contain everything, because what it
// leaves out is removed.
func (h *holding) whole() bool {
	return h.owner.wire.wholeState() && cache.ResourceRequiresFullStateInSotw(h.typeURL)
}

// decide says what to do about a name, and if something is withheld, why.
func (h *holding) decide(now *published, name string) (verdict, string) {
	if !h.wants(name) {
		return nothing, ""
	}
	if _, ok := h.flying[name]; ok {
		return wait, ""
	}
	set := now.of(h.typeURL)
	r, have := set.byName[name], h.held[name]
	_, asked := h.asked[name]
	once := h.s.writeOnce[h.typeURL]
	partial := h.owner.wire.wholeState() && !h.whole()

	switch {
	case r == nil && have == nil:
		delete(h.refused, name)
		h.settle(name)
		if asked && !partial {
			return remove, "" // "there is none": it would wait for its timeout
		}
		return nothing, ""
	case r == nil && set.left[name] == 0:
		return nothing, "" // not ours to remove
	case r == nil && once:
		return nothing, fmt.Sprintf("proxy %s keeps %s; restart that Envoy to take it away", h.p.node, Ref{h.typeURL, name})
	case r == nil:
		if why := h.p.neededBy(Ref{h.typeURL, name}, now); why != "" {
			return wait, why
		}
		if partial {
			return nothing, "" // this protocol has no way to say it
		}
		return remove, ""
	case have != nil && have.Version == r.Version:
		h.held[name] = r // from now on its body is known
		delete(h.refused, name)
		h.settle(name)
		if _, again := h.again[name]; asked || again {
			return send, ""
		}
		return nothing, ""
	case h.refused[name] == r.Version:
		if _, again := h.again[name]; again && have != nil && have.Body != nil {
			return repeat, ""
		}
		return nothing, ""
	case have != nil && once:
		return nothing, fmt.Sprintf("proxy %s keeps %s as it is; restart that Envoy to give it the new one", h.p.node, r.Ref)
	}
	for _, dep := range r.After {
		if d := h.p.types[dep.Type]; d == nil || d.held[dep.Name] == nil {
			return wait, fmt.Sprintf("%s waits until proxy %s has acknowledged %s", r.Ref, h.p.node, dep)
		}
	}
	return send, ""
}

// catchUp queues what was published since the last time. It costs the number of
// changes, not of names, unless the proxy is new or far behind.
func (h *holding) catchUp(now *published) {
	if h.seen == now.seq {
		return
	}
	set := now.of(h.typeURL)
	changes, ok := set.since(h.seen)
	if ok && h.seen > 0 {
		for _, c := range changes {
			if h.wants(c.name) {
				h.add(c.name)
			}
		}
		h.seen = now.seq
		return
	}
	h.seen = now.seq
	differs := func(name string) bool {
		r, have := set.byName[name], h.held[name]
		if r != nil && have != nil && r.Version == have.Version {
			h.held[name] = r
			return false
		}
		return r != nil || have != nil
	}
	names := set.names
	if !h.wildcard {
		names = slices.Sorted(maps.Keys(h.names))
	}
	for _, name := range names {
		if differs(name) {
			h.add(name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(h.held)) {
		if set.byName[name] == nil {
			h.add(name)
		}
	}
}

// write makes the next response, or nil if there is nothing to say now.
func (h *holding) write(now *published) *letter {
	single, limit := h.s.onePerResponse[h.typeURL], 1
	if single && !h.owner.wire.wholeState() {
		limit = window
	}
	if len(h.flight) >= limit {
		return nil
	}
	for {
		l := h.gather(now, single)
		n := len(l.changed) + len(l.removed)
		switch {
		case n > 0 && h.whole() && !h.complete(l):
			continue // withheld; there may be more in the queue
		case n == 0 && (!h.greet || len(h.waiting) > 0):
			return nil
		}
		h.post(l)
		return l
	}
}

// gather takes from the queue what goes into one response; with nothing in it,
// the queue is empty.
func (h *holding) gather(now *published, single bool) *letter {
	l := &letter{}
	at := 0
	for ; at < len(h.queue); at++ {
		name := h.queue[at]
		_, alone := h.alone[name]
		n := len(l.changed) + len(l.removed)
		if n > 0 && (single || alone) {
			break
		}
		delete(h.queued, name)
		v, why := h.decide(now, name)
		h.withhold(name, why)
		switch v {
		case wait:
			h.waiting[name] = struct{}{}
		case send:
			l.changed = append(l.changed, now.of(h.typeURL).byName[name])
		case repeat:
			l.changed = append(l.changed, h.held[name])
		case remove:
			l.removed = append(l.removed, name)
		}
		if alone && v >= send {
			at++
			break
		}
	}
	h.queue = h.queue[at:]
	if len(h.queue) == 0 {
		h.queue = nil
	}
	return l
}

// complete adds everything else that the proxy holds; false if that is not
// known, so that the response would remove what nobody asked to remove.
func (h *holding) complete(l *letter) bool {
	names := l.names()
	said := make(map[string]bool, len(names))
	for _, name := range names {
		said[name] = true
	}
	unknown := h.foreign
	l.all = slices.Clone(l.changed)
	for name, r := range h.held {
		switch {
		case said[name]:
		case r.Body != nil:
			l.all = append(l.all, r)
		default:
			unknown = true
		}
	}
	if unknown {
		for _, name := range names {
			h.withhold(name, fmt.Sprintf("proxy %s holds a %s that is not known here and would lose it; restart that Envoy, or let it use the delta protocol",
				h.p.node, kind(h.typeURL)))
		}
		return false
	}
	slices.SortFunc(l.all, func(a, b *Resource) int { return cmp.Compare(a.Name, b.Name) })
	return true
}

// post takes the letter down as sent.
func (h *holding) post(l *letter) {
	h.owner.nonces++
	l.nonce = strconv.FormatUint(h.owner.nonces, 10)
	h.flight[l.nonce], h.lastOne, h.greet = l, l.nonce, false
	for _, name := range l.names() {
		h.flying[name] = struct{}{}
		delete(h.asked, name)
		delete(h.alone, name)
		if mark, ok := h.again[name]; ok {
			if l.marks == nil {
				l.marks = map[string]uint64{}
			}
			l.marks[name] = mark
		}
	}
	next, ok := h.s.resend[h.typeURL]
	if !ok {
		return
	}
	other, err := h.p.holding(h.s, next)
	if err != nil {
		return // a proxy with that many types has no room for this one either
	}
	for _, r := range l.changed {
		h.p.marks++
		other.again[r.Name] = h.p.marks
		other.add(r.Name)
	}
	if other.owner != nil && other.owner != h.owner {
		other.owner.poke()
	}
}

func (h *holding) withhold(name, why string) {
	if h.withheld[name] == why {
		return
	}
	if why == "" {
		delete(h.withheld, name)
	} else {
		h.withheld[name] = why
	}
	h.s.notify()
}
