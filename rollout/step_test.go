package rollout

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/returns"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// eventful runs a world through a canary, a pause, a change of pace and a death
// and has look called whenever it comes to rest.
func eventful(t *testing.T, live discovery.Colour, look func(w *world)) *world {
	w := newWorld(t, 3, 3, 50, 2)
	if live == discovery.Green {
		mirror(w)
	}
	w.rests = func() { look(w) }
	w.run(3*time.Second, func() bool { return false })
	canary, soak := units.Share(500), units.Duration(5*time.Second)
	w.must(Promote{Service: "chat", Target: live.Other(), Overrides: Overrides{Canary: &canary, Soak: &soak}})
	w.run(12*time.Second, func() bool { return false })
	w.must(Pause{Service: "chat"})
	w.run(time.Second, func() bool { return false })
	w.must(Resume{Service: "chat"})
	w.must(SetPace{Service: "chat", Funnel: units.Funnel{Close: 7, Every: units.Duration(2 * time.Second)}})
	w.run(4*time.Second, func() bool { return false })
	for _, in := range w.instances {
		if in.Addr.Addr().As4()[1] == 1 && in.Addr.Addr().As4()[3] == 1 {
			in.dead, in.Health = true, discovery.Critical
		}
	}
	if !w.run(5*time.Minute, w.steady) {
		t.Fatalf("not done: %s", w.reason.Text)
	}
	return w
}

func (w *world) must(c Command) {
	w.t.Helper()
	if err := w.do(c); err != nil {
		w.t.Fatal(err)
	}
}

// mirror swaps the colours before anything happens.
func mirror(w *world) {
	w.state.Live = discovery.Green
	for _, in := range w.instances {
		in.Colour = in.Colour.Other()
	}
}

// Step changes nothing that it is given, says the same twice, and is at rest
// where it said so.
func TestStepIsPure(t *testing.T) {
	rests := 0
	eventful(t, discovery.Blue, func(w *world) {
		rests++
		s, seen := w.state, w.seen()
		was, saw := s.Clone(), w.seen()
		a := Step(s, seen, w.now)
		if a.Changed {
			t.Fatalf("not at rest: %+v", a.Reason)
		}
		b := Step(s, seen, w.now)
		if !reflect.DeepEqual(a, b) {
			t.Fatalf("twice the same, two decisions:\n%+v\n%+v", a, b)
		}
		// Later there may be something to do.
		Step(s, seen, w.now.Add(10*time.Second))
		Wished(s, seen)
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
	eventful(t, discovery.Blue, func(w *world) {
		at := w.now.Add(3 * time.Second)
		a, b := Step(w.state, w.seen(), at), Step(laterState(w.state, later), laterSeen(w.seen(), later), at.Add(later))
		if a.Changed != b.Changed || a.Reason.Code != b.Reason.Code || !reflect.DeepEqual(a.Ask, b.Ask) {
			t.Fatalf("now %+v, later %+v", a, b)
		}
		if !a.Wake.IsZero() && !a.Wake.Add(later).Equal(b.Wake) {
			t.Fatalf("wake %v, later %v", a.Wake, b.Wake)
		}
	})
}

func laterState(s State, d time.Duration) State {
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

func laterSeen(seen Seen, d time.Duration) Seen {
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
		w := eventful(t, live, func(w *world) {
			path := string(w.state.Phase()) + " " + string(w.reason.Code)
			if n := len(paths[i]); n == 0 || paths[i][n-1] != path {
				paths[i] = append(paths[i], path)
			}
		})
		if w.state.Live != live.Other() || len(w.evictions) == 0 {
			t.Errorf("from %s: live is %s after %d evictions", live, w.state.Live, len(w.evictions))
		}
	}
	if !reflect.DeepEqual(paths[0], paths[1]) {
		t.Errorf("from blue\n%v\nfrom green\n%v", paths[0], paths[1])
	}
}

// A state that no transition can have made is refused, in one sentence.
func TestStateCheck(t *testing.T) {
	for name, spoil := range map[string]func(s *State){
		"no service":         func(s *State) { s.Service = "" },
		"colour of a member": func(s *State) { s.Members["x"] = Member{Identity: Identity{ID: "x", Colour: "red"}} },
		"ceiling": func(s *State) {
			s.Members["x"] = Member{Identity: Identity{ID: "x", Colour: discovery.Blue}, Quota: Quota{Ceiling: new(-1)}}
		},
		"phase":          func(s *State) { s.Rollout.Phase = "sleeping" },
		"steady rollout": func(s *State) { s.Rollout.Phase = Steady },
		"epoch":          func(s *State) { s.Epoch = 0 },
		"no id":          func(s *State) { s.Rollout.ID = "" },
		"from and to":    func(s *State) { s.Rollout.From = s.Rollout.To },
		"goes to live":   func(s *State) { s.Live = s.Rollout.To },
		"no cap":         func(s *State) { s.Rollout.Policy.Funnel.Close = 0 },
		"no returns":     func(s *State) { s.Rollout.Returns = &returns.Estimate{} },
		"returns of others": func(s *State) {
			s.Rollout.Returns = new(returns.New(time.Minute).Observe(returns.Observation{Now: epoch, AsOf: epoch}))
			s.Rollout.Returns.Filters = s.Rollout.Returns.Filters[1:]
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewState("chat", discovery.Blue)
			s.Epoch = 1
			s.Rollout = &Rollout{ID: "chat-1", From: discovery.Blue, To: discovery.Green, Phase: Draining, Policy: DefaultPolicy()}
			if err := s.Check(); err != nil {
				t.Fatal(err)
			}
			spoil(&s)
			if s.Check() == nil {
				t.Errorf("accepted: %+v", s)
			}
			if data, err := EncodeState(s); err != nil {
				t.Error(err)
			} else if _, err := DecodeState(data); err == nil {
				t.Errorf("read back: %s", data)
			}
		})
	}
}

func TestEventsAreBounded(t *testing.T) {
	var r Rollout
	for i := range 1000 {
		r.note(epoch.Add(time.Duration(i)*time.Second), fmt.Sprint(i))
	}
	if n := len(r.Events); n != eventsKept || r.Omitted != 1000-n || r.Events[0].Text != "0" || r.Events[99].Text != "99" || r.Events[n-1].Text != "999" || r.Events[100].Text != "900" {
		t.Errorf("%d events, %d omitted, %v … %v", n, r.Omitted, r.Events[:2], r.Events[n-1])
	}
}
