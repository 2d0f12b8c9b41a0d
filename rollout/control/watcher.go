package control

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/internal/level"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
)

// watcher tells instances what is wished of them and sees what they say. One
// goroutine per instance talks to it, so that one that hangs holds up nobody.
// The wished map is a level: it is said again until the instance shows it.
type watcher struct {
	client *contract.Client
	notice func(discovery.Service) // called when somebody may wait for what was said
	counts func(discovery.Service) // called when nothing but counts changed

	mu       sync.Mutex
	services map[discovery.Service]*watched
	unheard  int // talkers that have asked nobody yet
}

// watched is the members of one service; guarded by watcher.mu.
type watched struct {
	talkers   map[discovery.InstanceID]*talker
	sightings map[discovery.InstanceID]observed.Sighting
	// shown is a copy of sightings, never changed once made; nil when it is old.
	shown map[discovery.InstanceID]observed.Sighting
}

// talker is the way to one instance's goroutine; assignment and rounds are guarded by
// watcher.mu.
type talker struct {
	assignment desired.Assignment
	wake       level.Level // ask now
	soon       level.Level // ask soon after the newest answer
	cancel     context.CancelFunc
	rounds     []*round // wait for its next answer
}

// round is one question to many; done is closed when left is 0. Guarded by watcher.mu.
type round struct {
	left int
	done chan struct{}
}

func (r *round) less() {
	if r.left--; r.left == 0 {
		close(r.done)
	}
}

// answered ends what waits for the talker's next answer.
func (t *talker) answered() {
	for _, r := range t.rounds {
		r.less()
	}
	t.rounds = nil
}

func newWatcher(client *contract.Client, notice, counts func(discovery.Service)) *watcher {
	return &watcher{client: client, notice: notice, counts: counts, services: map[discovery.Service]*watched{}}
}

// set replaces the whole map of what a service's members are told. Talkers run
// in group until ctx ends or their target is no longer in the map.
func (w *watcher) set(ctx context.Context, group *sync.WaitGroup, service discovery.Service, next map[discovery.InstanceID]desired.Assignment) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.services[service]
	if f == nil {
		f = &watched{talkers: map[discovery.InstanceID]*talker{}, sightings: map[discovery.InstanceID]observed.Sighting{}}
		w.services[service] = f
	}
	for key, talk := range f.talkers {
		if want, ok := next[key]; !ok || want.Endpoint != talk.assignment.Endpoint {
			talk.cancel()
			talk.answered()
			delete(f.talkers, key)
			delete(f.sightings, key)
			f.shown = nil
		}
	}
	for key, want := range next {
		talk, ok := f.talkers[key]
		if !ok {
			life, cancel := context.WithCancel(ctx)
			talk = &talker{assignment: want, wake: level.New(), soon: level.New(), cancel: cancel}
			f.talkers[key] = talk
			first := time.Duration(rand.Int64N(int64(w.unheard+1)) * int64(apiece))
			w.unheard++
			group.Go(func() {
				talk.rest(life, time.Now(), first)
				w.mu.Lock()
				w.unheard--
				w.mu.Unlock()
				w.talk(life, service, f, key, talk)
			})
			continue
		}
		if was := talk.assignment; was != want {
			talk.assignment = want
			switch within := want.Within(was); {
			case within == 0:
				talk.wake.Set()
			case within < want.Every:
				talk.soon.Set()
			}
		}
	}
}

// apiece is how long the first requests of each further instance are spread over when
// many are new at once, as at the start: they need a connection each.
const apiece = 50 * time.Microsecond

// fresh has every member of a service asked that was not heard lately, and returns when
// each has answered, or failed to, or ctx ends.
func (w *watcher) fresh(ctx context.Context, service discovery.Service) {
	r := &round{done: make(chan struct{})}
	w.mu.Lock()
	if f, lately := w.services[service], time.Now().Add(-desired.FreshFor); f != nil {
		for key, talk := range f.talkers {
			if s := f.sightings[key]; s.At.Before(lately) && s.ErrAt.Before(lately) {
				r.left++
				talk.rounds = append(talk.rounds, r)
				talk.wake.Set()
			}
		}
	}
	none := r.left == 0
	w.mu.Unlock()
	if none {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, desired.FreshWithin)
	defer cancel()
	select {
	case <-r.done:
	case <-ctx.Done():
	}
}

// ask has the named members asked now.
func (w *watcher) ask(service discovery.Service, keys []discovery.InstanceID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, key := range keys {
		if talk, ok := w.services[service].talkers[key]; ok {
			talk.wake.Set()
		}
	}
}

// seen returns what the members of a service said last; it is not to be changed.
func (w *watcher) seen(service discovery.Service) map[discovery.InstanceID]observed.Sighting {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.services[service]
	if f == nil {
		return nil
	}
	if f.shown == nil {
		f.shown = maps.Clone(f.sightings)
	}
	return f.shown
}

// talk asks an instance again and again. Each time is a goroutine of its own: an HTTP
// request and its judgement take a deep stack for a moment, and this way the stacks of the
// talkers, which wait nearly all the time, stay small.
func (w *watcher) talk(ctx context.Context, service discovery.Service, f *watched, key discovery.InstanceID, talk *talker) {
	for asked := true; ; {
		var answered time.Time
		var pause time.Duration
		var asking sync.WaitGroup
		asking.Go(func() { answered, pause = w.turn(ctx, service, f, key, talk, asked) })
		asking.Wait()
		if ctx.Err() != nil {
			return
		}
		if asked = talk.rest(ctx, answered, pause); ctx.Err() != nil {
			return
		}
	}
}

// turn asks an instance once and keeps what it says. It returns when it was answered, and
// how long to rest then.
func (w *watcher) turn(ctx context.Context, service discovery.Service, f *watched, key discovery.InstanceID, talk *talker, asked bool) (answered time.Time, pause time.Duration) {
	w.mu.Lock()
	assignment, last := talk.assignment, f.sightings[key]
	w.mu.Unlock()
	status, err := w.say(ctx, assignment, last)
	if ctx.Err() != nil {
		return
	}
	answered = time.Now()
	next := last.After(status, err, answered)
	w.mu.Lock()
	if f.talkers[key] == talk {
		f.sightings[key], f.shown = next, nil
	}
	talk.answered()
	w.mu.Unlock()
	idle := assignment.Every > desired.FreshFor && err == nil && reflect.DeepEqual(last.Status, next.Status)
	switch {
	case asked || last.Differs(next):
		w.notice(service)
	case !idle: // else nobody waits for it, and it says what it said before
		w.counts(service)
	}
	return answered, time.Duration(float64(assignment.Pause(last, status, err)) * spread(asked && assignment.Every > desired.FreshFor))
}

// spread is the part of a pause that is waited: an instance is asked at its own moments,
// so that a large fleet's answers do not come all at once, even after all of it was asked
// together.
func spread(together bool) float64 {
	if together {
		return rand.Float64()
	}
	return 0.75 + 0.5*rand.Float64()
}

// rest is the pause after an answer at this moment. It reports whether it ended because
// a decision waits for what the instance says.
func (t *talker) rest(ctx context.Context, answered time.Time, pause time.Duration) (asked bool) {
	due := time.NewTimer(pause)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-t.wake:
			return true
		case <-t.soon:
			if soon := desired.FreshFor; soon < pause {
				pause = soon
				due.Reset(time.Until(answered.Add(pause)))
			}
		case <-due.C:
			return false
		}
	}
}

// say tells an instance what it does not show yet, or asks.
func (w *watcher) say(ctx context.Context, a desired.Assignment, last observed.Sighting) (contract.Status, error) {
	switch {
	case last.At.IsZero() || a.Instruction.ShownBy(last.Status):
		return w.client.Status(ctx, a.Endpoint)
	case a.Instruction.Drain != nil:
		s, err := w.client.Order(ctx, a.Endpoint, *a.Instruction.Drain)
		if errors.As(err, new(*contract.Unable)) { // another process than the one that could: what it says decides
			return w.client.Status(ctx, a.Endpoint)
		}
		return s, err
	default:
		return w.client.Release(ctx, a.Endpoint, *a.Instruction.Serve)
	}
}
