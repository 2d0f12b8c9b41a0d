package sim

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/drain"
)

// talk is the loop's talk with the drain endpoint of one member, as the watcher in
// rollout/control keeps it: what an answer does to what is known, what is to be
// told and how soon to ask again are rollout's.
type talk struct {
	key    discovery.InstanceID
	with   *Instance
	told   rollout.Assignment
	due    time.Duration // when to ask next
	woken  bool          // to be asked at once: a decision waits for it
	asking bool          // a request is under way
	over   bool
}

// assign replaces the whole map of what the members are told.
func (w *World) assign(next map[discovery.InstanceID]rollout.Assignment) {
	w.talks = slices.DeleteFunc(w.talks, func(t *talk) bool {
		want, ok := next[t.key]
		if ok && want.Endpoint == t.told.Endpoint {
			// The watcher asks at once, too, when there is nothing to tell any more; no
			// decision waits for that answer, and here it would only be one more moment.
			tells := want.Instruction != (rollout.Instruction{}) && !want.Instruction.Same(t.told.Instruction)
			t.woken = t.woken || tells || want.Every < t.told.Every
			t.told = want
			return false
		}
		t.over = true
		delete(w.talking, t.key)
		delete(w.seen.Instances, t.key)
		return true
	})
	if len(next) == len(w.talks) {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(next)) {
		if w.talking[key] == nil {
			t := &talk{key: key, with: w.listening(next[key].Endpoint), told: next[key], woken: true}
			w.talking[key], w.talks = t, append(w.talks, t)
		}
	}
}

// listening is the instance behind a drain endpoint.
func (w *World) listening(endpoint string) *Instance {
	return w.byAddr[netip.MustParseAddrPort(strings.TrimPrefix(endpoint, "http://"))]
}

// ask has the named members asked now.
func (w *World) ask(keys []discovery.InstanceID) {
	for _, key := range keys {
		if t := w.talking[key]; t != nil {
			t.woken = true
		}
	}
}

// request is one request to a drain endpoint.
type request struct {
	talk   *talk
	told   rollout.Assignment
	tells  bool // it is told, not only asked
	asked  bool // a decision waits for it
	sent   time.Duration
	status drain.Status
	err    error
}

// send has the requests that are due go out, each a latency before its answer.
func (w *World) send() {
	batches := map[time.Duration][]*request{}
	var order []time.Duration
	for _, t := range w.talks {
		if t.asking || !t.woken && w.now < t.due {
			continue
		}
		last := w.seen.Instances[t.key]
		r := &request{talk: t, told: t.told, sent: w.now, asked: t.woken, tells: !last.At.IsZero() && !t.told.Instruction.ShownBy(last.Status)}
		t.asking, t.woken = true, false
		latency := t.with.latency
		if batches[latency] == nil {
			order = append(order, latency)
		}
		batches[latency] = append(batches[latency], r)
	}
	for _, latency := range order {
		w.after(latency, func() {
			for _, r := range batches[latency] {
				w.arrive(r)
			}
		})
		w.after(2*latency, func() {
			for _, r := range batches[latency] {
				w.answered(r)
			}
			w.send() // whoever was woken meanwhile
		})
	}
}

// nextAsk is when to ask next.
func (w *World) nextAsk() time.Duration {
	next := never
	for _, t := range w.talks {
		if !t.asking {
			next = min(next, t.due)
		}
	}
	return max(next, w.now)
}

// arrive is a request at its instance.
func (w *World) arrive(r *request) {
	switch in := r.talk.with; {
	case in.dead:
		r.err = fmt.Errorf("drain %s: dial tcp %s: connect: %w", r.told.Endpoint, in.Addr, syscall.ECONNREFUSED)
	case in.Deaf:
		r.err = fmt.Errorf("drain %s: no answer within 2s", r.told.Endpoint)
	default:
		if r.tells {
			w.hear(in, r.told.Instruction)
		}
		r.status = in.Status()
	}
}

func (w *World) answered(r *request) {
	t := r.talk
	if t.over {
		return
	}
	last := w.seen.Instances[t.key]
	next := last.After(r.status, r.err, w.Now())
	w.seen.Instances[t.key] = next
	pause := r.told.Pause(last, r.status, r.err)
	if w.conf.Exact {
		t.due = r.sent + pause
	} else { // at its own moments
		t.due = w.now + pause*3/4 + time.Duration(w.rng.Int64N(int64(pause/2)+1))
	}
	t.asking = false
	w.dirty, w.counted = w.dirty || r.asked || last.Differs(next), true
}
