package xds

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
		e := h.names.byName[c.Name]
		e.answered()
		c.prove()
		switch {
		case !h.subscription.wants(e):
		case e.held == c && e.refused != nil && e.refused.version != c.version: // a repetition settles nothing
		default:
			e.held, e.refused, e.tries = c, nil, 0
			h.settle(c.Name)
		}
	}
	for _, name := range r.removed {
		e := h.names.byName[name]
		e.answered()
		e.held, e.tries = nil, 0
		h.settle(name)
	}
	delete(h.nacks, "")
}

// agree records that the proxy holds what is published of a name: r, or nil for
// nothing. From now on the body of what it holds is known.
func (h *holding) agree(name string, e *entry, r *revision) {
	e.held, e.refused, e.tries = r, nil, 0
	if r != nil {
		r.prove()
	}
	h.settle(name)
}
