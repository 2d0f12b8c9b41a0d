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
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
)

// talk is the loop's talk with the drain endpoint of one member, as the watcher in
// rollout/control keeps it: what an answer does to what is known, what is to be
// told and how soon to ask again are rollout's.
type talk struct {
	key    discovery.InstanceID
	with   *Instance
	told   desired.Assignment
	heard  time.Duration // the newest answer
	due    time.Duration // when to ask next
	woken  bool          // to be asked at once: a decision waits for it
	asking bool          // a request is under way
	over   bool
}

// talks are those with all members, and what they said.
type talks struct {
	*ground
	fleet *Fleet
	with  map[discovery.InstanceID]*talk
	all   []*talk // the same, in a stable order
	heard map[discovery.InstanceID]observed.Sighting
}

// forget ends all talks.
func (a *talks) forget() {
	for _, t := range a.all {
		t.over = true
	}
	a.with, a.all, a.heard = map[discovery.InstanceID]*talk{}, nil, map[discovery.InstanceID]observed.Sighting{}
}

// assign replaces the whole map of what the members are told.
func (a *talks) assign(next map[discovery.InstanceID]desired.Assignment) {
	a.all = slices.DeleteFunc(a.all, func(t *talk) bool {
		want, ok := next[t.key]
		if ok && want.Endpoint == t.told.Endpoint {
			// The watcher asks at once, too, when there is nothing to tell any more; no
			// decision waits for that answer, and here it would only be one more moment.
			if within := want.Within(t.told); within > 0 && within < want.Every {
				t.due = min(t.due, t.heard+within)
			} else if within == 0 && (want.Instruction != (desired.Instruction{}) || want.Every < t.told.Every) {
				t.woken = true
			}
			t.told = want
			return false
		}
		t.over = true
		delete(a.with, t.key)
		delete(a.heard, t.key)
		return true
	})
	if len(next) == len(a.all) {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(next)) {
		if a.with[key] == nil {
			t := &talk{key: key, with: a.listening(next[key].Endpoint), told: next[key], woken: true}
			a.with[key], a.all = t, append(a.all, t)
		}
	}
}

// listening is the instance behind a drain endpoint.
func (a *talks) listening(endpoint string) *Instance {
	return a.fleet.byAddr[netip.MustParseAddrPort(strings.TrimPrefix(endpoint, "http://"))]
}

// ask has the named members asked now.
func (a *talks) ask(keys []discovery.InstanceID) {
	for _, key := range keys {
		if t := a.with[key]; t != nil {
			t.woken = true
		}
	}
}

// fresh asks every member that was not heard lately, and has the answers at once: the
// controller waits for them before it decides.
func (a *talks) fresh() {
	lately := a.Now().Add(-desired.FreshFor)
	for _, t := range a.all {
		if last := a.heard[t.key]; !t.asking && last.At.Before(lately) && last.ErrAt.Before(lately) {
			r := a.question(t)
			r.before = time.Millisecond
			a.arrive(r)
			a.answered(r)
		}
	}
}

// request is one request to a drain endpoint.
type request struct {
	talk   *talk
	told   desired.Assignment
	tells  bool // it is told, not only asked
	asked  bool // a decision waits for it
	sent   time.Duration
	before time.Duration // how long ago the answer came
	status contract.Status
	err    error
}

// send has the requests that are due go out, each a latency before its answer.
func (a *talks) send() {
	batches := map[time.Duration][]*request{}
	var order []time.Duration
	for _, t := range a.all {
		if t.asking || !t.woken && a.now < t.due {
			continue
		}
		r := a.question(t)
		latency := t.with.latency
		if batches[latency] == nil {
			order = append(order, latency)
		}
		batches[latency] = append(batches[latency], r)
	}
	for _, latency := range order {
		a.after(latency, func() {
			for _, r := range batches[latency] {
				a.arrive(r)
			}
		})
		a.after(2*latency, func() {
			for _, r := range batches[latency] {
				a.answered(r)
			}
			a.send() // a member that was woken meanwhile
		})
	}
}

// question is the next request to a member.
func (a *talks) question(t *talk) *request {
	last := a.heard[t.key]
	r := &request{talk: t, told: t.told, sent: a.now, asked: t.woken, tells: !last.At.IsZero() && !t.told.Instruction.ShownBy(last.Status)}
	t.asking, t.woken = true, false
	return r
}

// nextAsk is when to ask next.
func (a *talks) nextAsk() time.Duration {
	next := never
	for _, t := range a.all {
		if !t.asking {
			next = min(next, t.due)
		}
	}
	return max(next, a.now)
}

// arrive is a request at its instance.
func (a *talks) arrive(r *request) {
	switch in := r.talk.with; {
	case in.dead:
		r.err = fmt.Errorf("drain %s: dial tcp %s: connect: %w", r.told.Endpoint, in.Addr, syscall.ECONNREFUSED)
	case in.Deaf:
		r.err = fmt.Errorf("drain %s: no answer within 2s", r.told.Endpoint)
	case r.tells && in.Stranger > r.told.Instruction.Epoch():
		r.err = fmt.Errorf("drain %s: refused with 409: epoch %d is older than the last one", r.told.Endpoint, r.told.Instruction.Epoch())
	default:
		if r.tells {
			in.hear(r.told.Instruction)
		}
		if said := in.Status(); said.Check() == nil {
			r.status = said
		} else {
			r.err = fmt.Errorf("drain %s: the answer is no drain status: %w", r.told.Endpoint, said.Check())
		}
	}
}

func (a *talks) answered(r *request) {
	t := r.talk
	if t.over {
		return
	}
	last := a.heard[t.key]
	next := last.After(r.status, r.err, a.Now().Add(-r.before))
	a.heard[t.key] = next
	pause := r.told.Pause(last, r.status, r.err)
	t.heard = a.now
	if a.conf.Exact {
		t.due = r.sent + pause
	} else { // at its own moments
		t.due = a.now + pause*3/4 + time.Duration(a.rng.Int64N(int64(pause/2)+1))
	}
	t.asking = false
	if a.count(); r.asked || last.Differs(next) {
		a.ring()
	}
}
