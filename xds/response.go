package xds

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// window is how many responses of a one-per-response type may be unacknowledged at a
// time in the delta protocol, so that the round trip does not bound how fast a proxy
// starts. Every other type and protocol has one.
const window = 16

// batch bounds what is sent together of such a type, in bytes of its resources: a client of
// grpc-go takes 4 MiB in a message.
const batch = 1 << 20

// trials is to how many proxies new bytes go at once, however much is on its way to those. The
// others are sent them when nothing else is: one that hangs keeps nobody waiting.
const trials = 2

// response is one response to one proxy.
type response struct {
	nonce   string
	trial   *revision // the only content, which no proxy is known to have; else nil
	changed []*revision
	removed []string
	// all is everything that the response has to contain, where what it leaves out is
	// removed; else nil.
	all []*revision
}

func (r *response) empty() bool { return len(r.changed)+len(r.removed) == 0 }

func (r *response) names() []string {
	names := make([]string, 0, len(r.changed)+len(r.removed))
	for _, c := range r.changed {
		names = append(names, c.Name)
	}
	return append(names, r.removed...)
}

// flight is the responses of one type that are on their way to one proxy, until it has
// accepted or refused them. The peer's mutex guards it.
type flight struct {
	pending map[string]*response // by nonce
	newest  string               // nonce of the newest response; empty when there was none
}

// add sends the response on its way.
func (f *flight) add(r *response) { f.pending[r.nonce], f.newest = r, r.nonce }

// land takes the response with this nonce out, or returns nil when there is none.
func (f *flight) land(nonce string) *response {
	r := f.pending[nonce]
	delete(f.pending, nonce)
	if r != nil && r.trial != nil {
		r.trial.trying.Add(-1)
	}
	return r
}

// overtakes reports whether a newer response has been sent since the one with this nonce.
func (f *flight) overtakes(nonce string) bool { return f.newest != "" && nonce != f.newest }

// clear forgets every response: the stream that they were sent on has ended.
func (f *flight) clear() {
	for nonce := range f.pending {
		f.land(nonce)
	}
	f.newest = ""
}

// respond makes the next response, or nil if there is nothing to say now.
func (h *holding) respond(snap *snapshot) *response {
	single, limit := h.s.onePerResponse[h.typeURL], 1
	if single && !h.owner.protocol.wholeState() {
		limit = window
	}
	if len(h.flight.pending) >= limit {
		return nil
	}
	for {
		r := h.gather(snap, single)
		switch {
		case !r.empty() && h.whole() && !h.complete(r):
			continue // withheld; there may be more on the agenda
		case r.empty() && (!h.subscription.wildcardAsked || len(h.agenda.waiting)+len(h.agenda.queue) > 0):
			return nil
		}
		h.sent(r)
		return r
	}
}

// gather takes from the agenda what goes into one response. If that is nothing, its
// queue is empty, or has what others are trying while something is on its way to this proxy.
func (h *holding) gather(snap *snapshot, single bool) *response {
	r := &response{}
	set, bytes := snap.of(h.typeURL), 0
	var later []string
	for full := false; !full && len(h.agenda.queue) > 0; {
		name, e := h.agenda.first()
		alone := e.isolated
		if single {
			next := h.p.told(set.byName[name])
			if tried(next) && !alone && len(h.flight.pending)+len(r.changed) > 0 {
				later = append(later, h.agenda.skip())
				continue
			}
			alone = alone || h.alone(next, e)
			if !alone {
				bytes += len(next.envelope.Resource.Value)
			}
		}
		if !r.empty() && (alone || single && bytes > batch) {
			break
		}
		h.agenda.shift(e)
		if h.put(r, snap, name, e) {
			full = alone
		} else {
			h.names.tidy(name, e)
		}
	}
	if len(later) > 0 {
		h.agenda.queue = append(later, h.agenda.queue...)
	}
	if single && len(r.changed) == 1 && len(r.removed) == 0 && !r.changed[0].proven.Load() {
		r.trial = r.changed[0]
		r.trial.trying.Add(1)
	}
	return r
}

// tried reports whether enough other proxies are being sent bytes that nobody has.
func tried(r *revision) bool { return r != nil && r.trying.Load() >= trials && !r.proven.Load() }

// alone reports whether r, of a one-per-response type, goes in a response of its own: unless
// some proxy has acknowledged its bytes, it may be refused. Those that are may go together.
func (h *holding) alone(r *revision, e *entry) bool {
	return r == nil || h.s.writeOnce[h.typeURL] || e.tries > 0 || !r.proven.Load()
}

// put does what the verdict on a name says; false when the response says nothing of
// the name.
func (h *holding) put(r *response, snap *snapshot, name string, e *entry) bool {
	v := h.judge(snap, name, e)
	if v.agreed {
		h.agree(name, e, h.p.told(snap.of(h.typeURL).byName[name]))
	}
	h.withhold(name, e, v.why)
	switch v.action {
	case wait:
		h.agenda.wait(name, e)
	case send:
		r.changed = append(r.changed, h.varied(v.revision, e))
	case remove:
		r.removed = append(r.removed, name)
	}
	return v.action >= send
}

// complete adds to the response everything else that the proxy holds; false if that is
// not known, because the response would then remove it.
func (h *holding) complete(r *response) bool {
	names := r.names()
	listed := make(map[string]bool, len(names))
	for _, name := range names {
		listed[name] = true
	}
	unknown := h.names.foreign
	r.all = slices.Clone(r.changed)
	for name, e := range h.names.byName {
		switch {
		case e.held == nil || listed[name]:
		case e.held.envelope != nil:
			r.all = append(r.all, e.held)
		default:
			unknown = true
		}
	}
	if unknown {
		why := fmt.Sprintf("proxy %s holds a %s that is not known here and would lose it; restart that Envoy, or let it use the delta protocol",
			h.p.node, resource.Kind(h.typeURL))
		for _, name := range names {
			h.withhold(name, h.names.byName[name], why)
		}
		return false
	}
	slices.SortFunc(r.all, func(a, b *revision) int { return cmp.Compare(a.Name, b.Name) })
	return true
}

// sent gives the response its nonce and records that it is on its way.
func (h *holding) sent(r *response) {
	r.nonce = h.owner.nextNonce()
	h.flight.add(r)
	h.subscription.wildcardAsked = false
	for _, name := range r.names() {
		e := h.names.byName[name]
		e.pending, e.asked, e.isolated = true, false, false
		e.again, e.repeated = false, e.again
	}
	next, ok := h.s.resend[h.typeURL]
	if !ok {
		return
	}
	other, err := h.p.ensure(h.s, next)
	if err != nil {
		return // a proxy with that many types has no room for this one either
	}
	for _, c := range r.changed {
		other.names.ensure(c.Name).again = true
		other.agenda.add(c.Name)
	}
	if other.owner != nil && other.owner != h.owner {
		other.owner.wake.Set()
	}
}
