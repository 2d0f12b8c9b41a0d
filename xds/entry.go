package xds

// entry is what one proxy asks for, holds and is still to be told of one name. An
// entry that says nothing is the zero one, and is forgotten.
type entry struct {
	// held is what the proxy acknowledged, or claimed to hold when it connected;
	// without an envelope it is a version that is not known here.
	held *revision
	// refused is sent again when its content changes, or later; tries counts how often it was
	// refused since the proxy held what is published.
	refused *revision
	tries   int
	// maybe was part of a refused response, of which the proxy may have taken this part all the
	// same; maybeGone: the removal was. Both last until the proxy answers for the name alone.
	maybe     *revision
	maybeGone bool
	// withheld says what the proxy is not sent, and why.
	withheld *Withheld

	named    bool // the proxy asks for it, be there a wildcard or not
	asked    bool // must be answered even if the proxy holds the same, or if there is none
	queued   bool // is in agenda.queue
	waiting  bool // is in agenda.waiting
	isolated bool // was part of a refused response: goes in a response of its own
	pending  bool // is in a response that is not acknowledged

	// again: another type's resource was sent, which this one must follow (see
	// Options.Resend). repeated: the pending response is the one that follows. Both
	// are set when the other type's resource was sent once more since.
	again, repeated bool
}

// shared reports whether it is one that many proxies share.
func (e *entry) shared() bool {
	return e.held != nil && (e == &e.held.settled[0] || e == &e.held.settled[1])
}

// unsure reports whether the proxy may have, instead of what it holds, something else or nothing.
func (e *entry) unsure() bool {
	return e.maybeGone || e.maybe != nil && (e.held == nil || e.maybe.version != e.held.version)
}

// answered ends what was unsure.
func (e *entry) answered() { e.maybe, e.maybeGone = nil, false }

// disowned is what stays known of a name when the stream that spoke for its type has
// ended. The pending response is lost, so what it repeated must be sent again.
func (e entry) disowned() entry {
	return entry{held: e.held, refused: e.refused, tries: e.tries, maybe: e.maybe, maybeGone: e.maybeGone, named: e.named, again: e.again || e.repeated}
}

// dropped is what stays known of a name that the proxy no longer asks for: what is
// on its way still comes to an end.
func (e entry) dropped() entry {
	return entry{queued: e.queued, waiting: e.waiting, pending: e.pending}
}

// unheld is the entry of a proxy that may no longer hold what it held.
func (e entry) unheld() entry {
	e.held = nil
	e.answered()
	return e
}

// restarted is what stays known of a name when a stream asks for its type for the first
// time.
func (e entry) restarted() entry { return entry{again: e.again} }
