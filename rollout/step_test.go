package rollout_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/returns"
	"github.com/sluice-proxy/sluice/rollout/sim"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// eventful runs a world through a canary, a pause, a change of pace and a death
// and has look called whenever it comes to rest.
func eventful(t *testing.T, live discovery.Colour, look func(w world)) world {
	conf := small(3, 3, 50, 2)
	conf.Live = live
	w := newWorld(t, conf)
	w.Rests = func() { look(w) }
	w.Pass(3 * time.Second)
	canary, soak := units.Share(500), units.Duration(5*time.Second)
	w.must(rollout.Promote{Service: "chat", Target: live.Other(), Overrides: policy.Overrides{Canary: &canary, Soak: &soak}})
	w.Pass(12 * time.Second)
	w.must(rollout.Pause{Service: "chat"})
	w.Pass(time.Second)
	w.must(rollout.Resume{Service: "chat"})
	w.must(rollout.SetPace{Service: "chat", Funnel: units.Funnel{Close: 7, Every: units.Duration(2 * time.Second)}})
	w.Pass(4 * time.Second)
	w.Fleet.Colour(live)[1].Vanish()
	w.until(5*time.Minute, w.Steady)
	return w
}

// Step changes nothing that it is given, says the same twice, and is at rest
// where it said so.
func TestStepIsPure(t *testing.T) {
	rests := 0
	eventful(t, discovery.Blue, func(w world) {
		rests++
		s, seen := w.State(), w.Seen()
		was, saw := s.Clone(), w.Seen()
		a := rollout.Step(s, seen, w.Now())
		if a.Changed {
			t.Fatalf("not at rest: %+v", a.Reason)
		}
		b := rollout.Step(s, seen, w.Now())
		if !reflect.DeepEqual(a, b) {
			t.Fatalf("twice the same, two decisions:\n%+v\n%+v", a, b)
		}
		// Later there may be something to do.
		rollout.Step(s, seen, w.Now().Add(10*time.Second))
		rollout.Wished(s, seen, w.Now())
		if !reflect.DeepEqual(s.Clone(), was) || !reflect.DeepEqual(seen, saw) {
			t.Fatal("Step changed what it was given")
		}
	})
	if rests < 50 {
		t.Errorf("only %d looks", rests)
	}
}

// Nothing depends on the hour: decisions move with the clock.
func TestStepMovesWithTheClock(t *testing.T) {
	const later = 1000 * time.Hour
	eventful(t, discovery.Blue, func(w world) {
		at := w.Now().Add(3 * time.Second)
		a, b := rollout.Step(w.State(), w.Seen(), at), rollout.Step(laterState(w.State(), later), laterSeen(w.Seen(), later), at.Add(later))
		if a.Changed != b.Changed || a.Reason.Code != b.Reason.Code || !reflect.DeepEqual(a.Ask, b.Ask) {
			t.Fatalf("now %+v, later %+v", a, b)
		}
		if !a.Wake.IsZero() && !a.Wake.Add(later).Equal(b.Wake) {
			t.Fatalf("wake %v, later %v", a.Wake, b.Wake)
		}
	})
}

func laterState(s state.State, d time.Duration) state.State {
	s = s.Clone()
	for key, m := range s.Members {
		later(&m.Departed, d)
		later(&m.HookedAt, d)
		s.Members[key] = m
	}
	if r := s.Rollout; r != nil {
		later(&r.Started, d)
		later(&r.Since, d)
		later(&r.Settled, d)
		later(&r.StepAt, d)
		later(&r.OrderedAt, d)
		later(&r.Flow.At, d)
		later(&r.BatchAt, d)
		later(&r.Turned, d)
		later(&r.Red, d)
		r.Marks = slices.Clone(r.Marks)
		for i := range r.Marks {
			later(&r.Marks[i].At, d)
		}
		if r.Returns != nil {
			r.Returns = new(*r.Returns)
			later(&r.Returns.Since, d)
			later(&r.Returns.At, d)
			later(&r.Returns.Short, d)
			later(&r.Returns.LearnAt, d)
			later(&r.Returns.GaveUp, d)
			later(&r.Returns.Seen, d)
		}
	}
	return s
}

func laterSeen(seen observed.Seen, d time.Duration) observed.Seen {
	later(&seen.Watching, d)
	for key, sight := range seen.Instances {
		later(&sight.At, d)
		later(&sight.ErrAt, d)
		later(&sight.FailingSince, d)
		seen.Instances[key] = sight
	}
	for i := range seen.Proxies {
		later(&seen.Proxies[i].Lost, d)
	}
	return seen
}

func later(t *time.Time, d time.Duration) {
	if !t.IsZero() {
		*t = t.Add(d)
	}
}

// Colours are only names: the mirrored world goes the same way.
func TestColoursAreOnlyNames(t *testing.T) {
	var paths [2][]string
	for i, live := range discovery.Colours {
		w := eventful(t, live, func(w world) {
			path := string(w.State().Phase()) + " " + string(w.Reason().Code)
			if n := len(paths[i]); n == 0 || paths[i][n-1] != path {
				paths[i] = append(paths[i], path)
			}
		})
		if w.State().Live != live.Other() || len(w.Closes()) == 0 {
			t.Errorf("from %s: live is %s after %d closes", live, w.State().Live, len(w.Closes()))
		}
	}
	if !reflect.DeepEqual(paths[0], paths[1]) {
		t.Errorf("from blue\n%v\nfrom green\n%v", paths[0], paths[1])
	}
}

// A state that no transition can have made is refused, in one sentence.
func TestStateCheck(t *testing.T) {
	w := newWorld(t, small(1, 1, 20, 1))
	w.Pass(3 * time.Second)
	w.must(rollout.Promote{Service: "chat", Target: discovery.Green})
	w.until(time.Minute, func() bool { return w.State().Phase() == state.Draining })
	member := func(change func(*state.Member)) func(*state.State) {
		return func(s *state.State) {
			m := s.Members["chat-b0001"]
			change(&m)
			s.Members["chat-b0001"] = m
		}
	}
	for name, spoil := range map[string]func(s *state.State){
		"no service":         func(s *state.State) { s.Service = "" },
		"colour of a member": member(func(m *state.Member) { m.Colour = "red" }),
		"ceiling":            member(func(m *state.Member) { m.Ceiling = new(-1) }),
		"phase":              func(s *state.State) { s.Rollout.Phase = "sleeping" },
		"steady rollout":     func(s *state.State) { s.Rollout.Phase = state.Steady },
		"epoch":              func(s *state.State) { s.Epoch = 0 },
		"no id":              func(s *state.State) { s.Rollout.ID = "" },
		"from and to":        func(s *state.State) { s.Rollout.From = s.Rollout.To },
		"goes to live":       func(s *state.State) { s.Live = s.Rollout.To },
		"no cap":             func(s *state.State) { s.Rollout.Policy.Funnel.Close = 0 },
		"no returns":         func(s *state.State) { s.Rollout.Returns = &returns.Estimate{} },
		"returns of others": func(s *state.State) {
			s.Rollout.Returns = new(returns.New(time.Minute).Observe(returns.Observation{Now: sim.Epoch, AsOf: sim.Epoch}))
			s.Rollout.Returns.Filters = s.Rollout.Returns.Filters[1:]
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := w.State().Clone()
			if err := s.Check(); err != nil {
				t.Fatal(err)
			}
			spoil(&s)
			if s.Check() == nil {
				t.Errorf("accepted: %+v", s)
			}
			if data, err := state.Encode(s); err != nil {
				t.Error(err)
			} else if _, err := state.Decode(data); err == nil {
				t.Errorf("read back: %s", data)
			}
		})
	}
}

// The first hundred events of a rollout are kept, and the last hundred.
func TestEventsAreBounded(t *testing.T) {
	w := newWorld(t, small(1, 1, 20, 1))
	w.Pass(3 * time.Second)
	w.must(rollout.Promote{Service: "chat", Target: discovery.Green})
	w.until(time.Minute, func() bool { return w.State().Phase() == state.Draining })
	before := len(w.State().Rollout.Events)
	for n := range 500 {
		w.must(rollout.SetPace{Service: "chat", Funnel: units.Funnel{Close: 11 + n, Every: units.Duration(3 * time.Second)}})
		w.must(rollout.Pause{Service: "chat"})
		w.must(rollout.Resume{Service: "chat"})
	}
	r := w.State().Rollout
	pace := func(n int) string { return fmt.Sprintf("pace %d/3s instead of %d/3s", n, n-1) }
	if n := len(r.Events); n != 200 || r.Omitted != 1500+before-n || r.Events[0].Text != "promote green: 20 connections, 10/3s at most" ||
		r.Events[before].Text != pace(11) || !strings.HasPrefix(r.Events[n-3].Text, pace(510)) || r.Events[n-1].Text != "resumed" {
		t.Errorf("%d events, %d before and %d omitted, %v … %v", n, before, r.Omitted, r.Events[:before+1], r.Events[n-3:])
	}
}
