package xds

// entry is what one proxy asks for, holds and is still to be told of one name. An
// entry that says nothing is the zero one, and is forgotten.
type entry struct {
	// held is what the proxy acknowledged, or claimed to hold when it connected;
	// without an envelope it is a version that is not known here.
	held *revision
	// refused is not sent again before its content changes.
	refused *revision
	// withheld says what the proxy is not sent, and why.
	withheld *Withheld

	named    bool // the proxy asks for it, be there a wildcard or not
	asked    bool // must be answered even if the proxy holds the same, or if there is none
	queued   bool // is in holding.queue
	waiting  bool // is in holding.waiting
	isolated bool // was part of a refused response: goes in a response of its own
	pending  bool // is in a response that is not acknowledged

	// again: the proxy must be sent it after another type's resource that it has
	// been sent (see Options.Resend). repeated: the pending response does that. Both
	// are set when the other type's was sent once more since.
	again, repeated bool
}

// disowned is what stays known when nobody speaks for the type any more: what was
// on its way has to be sent again.
func (e entry) disowned() entry {
	return entry{held: e.held, refused: e.refused, named: e.named, again: e.again || e.repeated}
}

// dropped is what stays known of a name that the proxy no longer asks for: what is
// on its way still comes to an end.
func (e entry) dropped() entry {
	return entry{queued: e.queued, waiting: e.waiting, pending: e.pending}
}

// unheld is the entry of a proxy that may no longer hold what it held.
func (e entry) unheld() entry {
	e.held = nil
	return e
}

// restarted is what stays known when a stream asks for the type for the first time.
func (e entry) restarted() entry { return entry{again: e.again} }
