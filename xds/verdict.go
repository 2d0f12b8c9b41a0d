package xds

import (
	"fmt"

	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// verdict is what is to be done about one name now.
type verdict struct {
	action
	revision *revision // to send
	why      string    // something is withheld; empty: nothing is
	// agreed: the proxy holds what is published, or nothing where nothing is
	// published, so that no refusal counts any more.
	agreed bool
}

type action int

const (
	nothing action = iota // until the content changes
	wait                  // until an acknowledgement
	send
	remove
)

// judge returns the verdict on a name by what is published, what its entry says and what the proxy
// holds of other types. It reads only. The peer's mutex is held.
func (h *holding) judge(snap *snapshot, name string, e *entry) verdict {
	set := snap.of(h.typeURL)
	r := h.p.told(set.byName[name])
	switch {
	case !h.subscription.wants(e):
		return verdict{}
	case e.pending:
		return verdict{action: wait}
	case r == nil && e.held == nil:
		if e.asked && !h.partial() {
			// A removal says that there is none; without it the proxy waits for its timeout.
			return verdict{action: remove, agreed: true}
		}
		return verdict{agreed: true}
	case r == nil && set.removed[name] == 0:
		return verdict{} // this process never published it
	case r == nil:
		return h.removal(snap, resource.Ref{Type: h.typeURL, Name: name})
	case e.held != nil && e.held.version == r.version:
		if e.asked || e.again {
			return verdict{action: send, revision: r, agreed: true}
		}
		return verdict{agreed: true}
	case e.refused != nil && e.refused.version == r.version:
		if e.again && e.held != nil && e.held.envelope != nil {
			return verdict{action: send, revision: e.held}
		}
		return verdict{}
	}
	return h.update(snap, r, e)
}

// removal is the verdict on a name that the proxy holds and that was left out.
func (h *holding) removal(snap *snapshot, ref resource.Ref) verdict {
	if h.s.writeOnce[h.typeURL] {
		return verdict{why: fmt.Sprintf("proxy %s keeps %s; drain that Envoy and restart it to take it away", h.p.node, ref)}
	}
	if why := h.p.neededBy(ref, snap); why != "" {
		return verdict{action: wait, why: why}
	}
	if h.partial() {
		return verdict{} // this protocol has no way to remove it
	}
	return verdict{action: remove}
}

// update is the verdict on a published resource that the proxy does not hold in this
// version and has not refused.
func (h *holding) update(snap *snapshot, r *revision, e *entry) verdict {
	if e.held != nil && h.s.writeOnce[h.typeURL] {
		return verdict{why: fmt.Sprintf("proxy %s keeps the %s that it has, %s; drain that Envoy and restart it to give it the new one", h.p.node, r.Ref, r.kept(e.held.version))}
	}
	if r.keep != "" && e.held != nil && e.held.envelope == nil {
		return verdict{why: fmt.Sprintf("proxy %s keeps %s as it is: %s", h.p.node, r.Ref, r.keep)}
	}
	for _, need := range r.after {
		if other := h.p.types[need.Type]; other == nil || !other.names.has(need.Name) {
			return verdict{action: wait, why: fmt.Sprintf("%s waits until proxy %s has acknowledged %s", r.Ref, h.p.node, need)}
		}
	}
	if e.held != nil {
		for _, first := range r.behind {
			if h.p.isToHear(first, snap) {
				return verdict{action: wait, why: fmt.Sprintf("%s waits until proxy %s has answered the newest %s", r.Ref, h.p.node, first)}
			}
		}
	}
	return verdict{action: send, revision: r}
}

// isToHear reports whether the newest of ref is on its way to the proxy, or can be sent now. p.mu
// is held.
func (p *peer) isToHear(ref resource.Ref, snap *snapshot) bool {
	h := p.types[ref.Type]
	if h == nil || h.owner == nil {
		return false
	}
	e := h.names.byName[ref.Name]
	return e != nil && (e.pending || h.judge(snap, ref.Name, e).action == send)
}

// whole reports whether a response has to contain everything, because what it
// leaves out is removed.
func (h *holding) whole() bool {
	return h.owner.protocol.wholeState() && cache.ResourceRequiresFullStateInSotw(h.typeURL)
}

// partial reports whether a response has no way to remove anything.
func (h *holding) partial() bool { return h.owner.protocol.wholeState() && !h.whole() }
