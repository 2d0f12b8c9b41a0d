package xds

import (
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// maxMessage bounds what is kept of a refusal, in bytes.
const maxMessage = 4 << 10

// answer takes the proxy's answer to the response with this nonce, if there is one;
// message is why it was refused.
func (h *holding) answer(nonce, message string, refused bool) {
	r := h.flight.land(nonce)
	if r == nil {
		return // stale, or a change of the subscription only
	}
	names := r.names()
	for _, name := range names {
		e := h.names.byName[name]
		e.pending, e.repeated = false, false
	}
	if refused {
		h.refuse(r, message)
	} else {
		h.accept(r)
	}
	for _, name := range names {
		if e := h.names.byName[name]; e != nil {
			h.names.tidy(name, e)
		}
	}
	h.p.retry(h.owner)
}

func (h *holding) accept(r *response) {
	for _, c := range r.changed {
		if e := h.names.byName[c.Name]; h.subscription.wants(e) && e.held != c { // a repetition settles nothing
			e.held, e.refused = c, nil
			h.settle(c.Name)
		}
	}
	for _, name := range r.removed {
		h.names.byName[name].held = nil
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
		h.nack.Version = r.changed[0].version
	}
	h.s.log.Warn("proxy refused a response", "node", h.p.node, "type", resource.Kind(h.typeURL), "names", names, "message", h.nack.Message)
	if len(names) > 1 {
		for _, name := range names {
			if e := h.names.byName[name]; h.subscription.wants(e) {
				e.isolated = true
				h.agenda.ask(name)
			}
		}
		return
	}
	for _, c := range r.changed {
		h.names.byName[c.Name].refused = c
	}
}

// agree records that the proxy holds what is published of a name: r, or nil for
// nothing. From now on the body of what it holds is known.
func (h *holding) agree(name string, e *entry, r *revision) {
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
	h.s.changed.Set()
}
