package control

import (
	"context"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/internal/level"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/observed"
)

// watcher tells instances what is wished of them and sees what they say. One
// goroutine per instance talks to it, so that one that hangs holds up nobody.
// The wished map is a level: it is said again until the instance shows it.
type watcher struct {
	client *drain.Client
	notice func(discovery.Service) // called when somebody may wait for what was said
	counts func(discovery.Service) // called when nothing but counts changed

	mu       sync.Mutex
	services map[discovery.Service]*watched
}

// watched is the members of one service; guarded by watcher.mu.
type watched struct {
	talkers   map[discovery.InstanceID]*talker
	sightings map[discovery.InstanceID]observed.Sighting
	// shown is a copy of sightings, never changed once made; nil when it is old.
	shown map[discovery.InstanceID]observed.Sighting
}

// talker is the way to one instance's goroutine; assignment is guarded by watcher.mu.
type talker struct {
	assignment rollout.Assignment
	wake       level.Level
	cancel     context.CancelFunc
}

func newWatcher(client *drain.Client, notice, counts func(discovery.Service)) *watcher {
	return &watcher{client: client, notice: notice, counts: counts, services: map[discovery.Service]*watched{}}
}

// set replaces the whole map of what a service's members are told. Talkers run
// in group until ctx ends or their target is no longer in the map.
func (w *watcher) set(ctx context.Context, group *sync.WaitGroup, service discovery.Service, next map[discovery.InstanceID]rollout.Assignment) {
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
			delete(f.talkers, key)
			delete(f.sightings, key)
			f.shown = nil
		}
	}
	for key, want := range next {
		talk, ok := f.talkers[key]
		if !ok {
			life, cancel := context.WithCancel(ctx)
			talk = &talker{assignment: want, wake: level.New(), cancel: cancel}
			f.talkers[key] = talk
			group.Go(func() { w.talk(life, service, f, key, talk) })
			continue
		}
		if talk.assignment != want {
			changed := !talk.assignment.Instruction.Same(want.Instruction) || want.Every < talk.assignment.Every
			talk.assignment = want
			if changed {
				talk.wake.Set()
			}
		}
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

func (w *watcher) talk(ctx context.Context, service discovery.Service, f *watched, key discovery.InstanceID, talk *talker) {
	for asked := true; ; {
		w.mu.Lock()
		assignment, last := talk.assignment, f.sightings[key]
		w.mu.Unlock()

		status, err := apart(func() (drain.Status, error) { return w.say(ctx, assignment, last) })
		if ctx.Err() != nil {
			return
		}
		next := last.After(status, err, time.Now())
		w.mu.Lock()
		if f.talkers[key] == talk {
			f.sightings[key], f.shown = next, nil
		}
		w.mu.Unlock()
		if asked || last.Differs(next) {
			w.notice(service)
		} else {
			w.counts(service)
		}

		// An instance is asked at its own moments, so that a large fleet's
		// answers do not come all at once.
		pause := time.Duration(float64(assignment.Pause(last, status, err)) * (0.75 + 0.5*rand.Float64()))
		select {
		case <-ctx.Done():
			return
		case <-talk.wake:
			asked = true
		case <-time.After(pause):
			asked = false
		}
	}
}

// apart runs ask in a goroutine of its own and waits for it. An HTTP request takes
// a deep stack for a moment: this way the stacks of the talkers, which wait nearly
// all the time, stay small (measured: 5 of 70 MB with 1000 instances).
func apart(ask func() (drain.Status, error)) (s drain.Status, err error) {
	var asking sync.WaitGroup
	asking.Go(func() { s, err = ask() })
	asking.Wait()
	return s, err
}

// say tells an instance what it does not show yet, or asks.
func (w *watcher) say(ctx context.Context, a rollout.Assignment, last observed.Sighting) (drain.Status, error) {
	switch {
	case last.At.IsZero() || a.Instruction.ShownBy(last.Status):
		return w.client.Status(ctx, a.Endpoint)
	case a.Instruction.Drain != nil:
		return w.client.Order(ctx, a.Endpoint, *a.Instruction.Drain)
	default:
		return w.client.Release(ctx, a.Endpoint, *a.Instruction.Serve)
	}
}
