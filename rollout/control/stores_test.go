package control

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// street is a Controller of many small services without drain endpoints, and the
// proxies that all of them see.
type street struct {
	t       testing.TB
	control *Controller
	shelf   *shelf
	stop    func()

	mu      sync.Mutex
	world   discovery.Snapshot
	proxies []observed.Proxy
	wishes  desired.Wishes
	publish int
}

// newStreet has the store hang for the services that are stuck.
func newStreet(t testing.TB, services int, stuck ...discovery.Service) *street {
	s := &street{t: t, shelf: &shelf{data: map[discovery.Service]state.Stored{}}, world: discovery.Snapshot{}}
	s.shelf.stick(stuck...)
	configured := map[discovery.Service]Service{}
	for i := range services {
		name := discovery.Service(fmt.Sprintf("s%04d", i))
		configured[name] = Service{Live: discovery.Blue, Policy: policy.Default()}
		s.world[name] = discovery.Fleet{Instances: []discovery.Instance{
			{ID: "b1", Colour: discovery.Blue, Addr: netip.MustParseAddrPort("10.0.0.1:80"), Health: discovery.Passing},
			{ID: "g1", Colour: discovery.Green, Addr: netip.MustParseAddrPort("10.0.0.2:80"), Health: discovery.Passing},
		}}
	}
	client := contract.NewClient("")
	s.control = New(Ports{
		Store: s.shelf, Drain: client, Publish: s.hear, Logger: slog.New(slog.DiscardHandler),
		Proxies: func(discovery.Service) []observed.Proxy {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.proxies
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.control.Run(ctx) }()
	s.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		client.Close()
	}
	s.control.Configure(configured)
	s.control.Discovered(maps.Clone(s.world))
	return s
}

func (s *street) hear(wishes desired.Wishes) map[discovery.Service]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.publish, s.wishes = s.publish+1, wishes
	return nil
}

// change has discovery say something else of some services.
func (s *street) change(do func(*discovery.Instance), names ...discovery.Service) {
	s.mu.Lock()
	for _, name := range names {
		fleet := s.world[name]
		fleet.Instances = slices.Clone(fleet.Instances)
		do(&fleet.Instances[0])
		s.world[name] = fleet
	}
	world := maps.Clone(s.world)
	s.mu.Unlock()
	s.control.Discovered(world)
}

func (s *street) draining(name discovery.Service) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wishes[name].Endpoints[discovery.Blue][0].Draining
}

func (s *street) told() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.publish
}

func (s *street) connect(node string) {
	s.mu.Lock()
	s.proxies = append(slices.Clone(s.proxies), observed.Proxy{Node: node, Routes: true, Connected: true, Confirmed: true})
	s.mu.Unlock()
	s.control.Notice()
}

func sick(in *discovery.Instance) { in.Health = discovery.Critical }

// While the store hangs and every service has something to store, what needs no new
// state shows at once, and commands are refused in time.
func TestHangingStoreDelaysNoHealth(t *testing.T) {
	for _, n := range []int{1, 10, 300} {
		synctest.Test(t, func(t *testing.T) {
			s := newStreet(t, n)
			defer s.stop()
			time.Sleep(2 * time.Second) // nothing is stored: a proxy may still say what is live
			s.shelf.hang(true)
			s.connect("edge-new")
			for i := range 3 {
				time.Sleep(7 * time.Second)
				last := discovery.Service(fmt.Sprintf("s%04d", n-1))
				s.change(func(in *discovery.Instance) {
					in.Health = [...]discovery.Health{discovery.Critical, discovery.Passing}[i%2]
				}, last)
				time.Sleep(100 * time.Millisecond)
				if s.draining(last) != (i%2 == 0) {
					t.Errorf("%d services: 100 ms after its health changed to another the proxies have not heard it", n)
				}
			}
			began := time.Now()
			_, err := s.control.Do(t.Context(), rollout.Promote{Service: "s0000", Target: discovery.Green, Overrides: policy.Overrides{}, Force: true})
			if took := time.Since(began); took > rollout.StorePatience || err == nil {
				t.Errorf("%d services: a command was answered after %v: %v", n, took, err)
			}
			views, _ := s.control.Views()
			if r := views["s0000"].Reason; r.Code != rollout.StoreFailing || !strings.Contains(r.Text, "gave no answer within 3s") {
				t.Errorf("%d services: the view says %+v", n, r)
			}
			s.shelf.hang(false)
			time.Sleep(10 * time.Second)
			views, _ = s.control.Views()
			for name, v := range views {
				if v.Reason.Code == rollout.StoreFailing || !slices.Contains(v.State.Proxies, "edge-new") {
					t.Errorf("%s has not recovered: %s, %v", name, v.Reason.Text, v.State.Proxies)
				}
			}
		})
	}
}

// The store hangs for one service: the others are promoted as if it did not.
func TestOneStuckServiceHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStreet(t, 3)
		defer s.stop()
		time.Sleep(2 * time.Second)
		s.shelf.stick("s0000")
		s.connect("edge-new")
		began := time.Now()
		if _, err := s.control.Do(t.Context(), rollout.Promote{Service: "s0001", Target: discovery.Green, Force: true}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("the promotion of another service was answered after %v", took)
		}
		time.Sleep(2 * time.Second)
		views, _ := s.control.Views()
		if p := views["s0001"].State.Phase(); p != state.Draining {
			t.Errorf("two seconds later it is %s: %s", p, views["s0001"].Reason.Text)
		}
		if r := views["s0000"].Reason; r.Code != rollout.StoreFailing {
			t.Errorf("the one that is stuck says %+v", r)
		}
	})
}

// A new service whose first state cannot be stored keeps the others from being
// published for as long as the store may take, once.
func TestFirstStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStreet(t, 3, "s0001")
		defer s.stop()
		time.Sleep(rollout.StorePatience - time.Second)
		if err := s.control.Ready(); err == nil {
			t.Error("ready before it is known whether the store takes everything")
		}
		time.Sleep(2*time.Second + 100*time.Millisecond)
		s.mu.Lock()
		published := 0
		for _, w := range s.wishes {
			if w.Unsettled == "" {
				published++
			}
		}
		s.mu.Unlock()
		if err := s.control.Ready(); err != nil || published != 2 {
			t.Errorf("%d services are published, ready: %v", published, err)
		}
		s.shelf.stick()
		time.Sleep(5 * time.Second)
		if views, _ := s.control.Views(); views["s0001"].Reason.Code != rollout.IsSteady {
			t.Errorf("the third is %+v", views["s0001"].Reason)
		}
	})
}

// A pass publishes once, whatever changed, and stores each new state once.
func TestOnePublicationPerPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStreet(t, 200)
		defer s.stop()
		time.Sleep(2 * time.Second)
		if s.told() != 1 || s.shelf.written() != 200 {
			t.Errorf("the start took %d publications and %d writes, want 1 and 200", s.told(), s.shelf.written())
		}
		s.change(sick, slices.Collect(maps.Keys(s.world))...)
		time.Sleep(time.Second)
		if s.told() != 2 || s.shelf.written() != 200 {
			t.Errorf("after 200 services changed there are %d publications and %d writes, want 2 and 200", s.told(), s.shelf.written())
		}
	})
}

// A store that takes its time: what it has not answered shows nowhere, and the view
// says what is waited for.
func TestSlowStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 2, 2, 40)
		r.start()
		r.shelf.slow(time.Second)
		began := time.Now()
		r.do(promoteGreen)
		if took := time.Since(began); took < time.Second || took > 2*time.Second {
			t.Errorf("answered after %v", took)
		}
		v := r.until("slow", func(v rollout.View) bool { return v.Reason.Code == rollout.StoreFailing })
		if !strings.Contains(v.Reason.Text, "the store has given no answer yet") {
			t.Errorf("reason %q", v.Reason.Text)
		}
		r.untilPhase(state.Draining)
		r.do(rollout.Pause{Service: "chat"})
		time.Sleep(2 * time.Second) // what an order allowed before
		closed := r.closed()
		r.do(rollout.Resume{Service: "chat"})
		if v := r.view(); v.State.Rollout.Paused {
			t.Error("resumed, and the view says that it is paused")
		}
		r.untilPhase(state.Steady)
		if closed == 40 {
			t.Error("nothing was left to do after the pause")
		}
		r.once(40)
	})
}

// What a command is answered is what the very next view says.
func TestAnsweredIsShown(t *testing.T) {
	for _, delay := range []time.Duration{0, 5 * time.Millisecond, 700 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, 2, 2, 60)
			r.start()
			r.shelf.slow(delay)
			r.do(promoteGreen)
			if v := r.view(); v.State.Phase() == state.Steady {
				t.Errorf("with a store of %v: promoted, and the view says steady", delay)
			}
			for i := range 20 {
				time.Sleep(time.Duration(37*i) * time.Millisecond)
				r.do(rollout.Pause{Service: "chat"})
				if v := r.view(); !v.State.Rollout.Paused || v.Reason.Code != rollout.Paused && v.Reason.Code != rollout.StoreFailing {
					t.Errorf("with a store of %v: paused, and the view says %+v", delay, v.Reason)
				}
				r.do(rollout.Resume{Service: "chat"})
				if v := r.view(); v.State.Rollout.Paused || v.Reason.Code == rollout.Paused {
					t.Errorf("with a store of %v: resumed, and the view says %+v", delay, v.Reason)
				}
			}
			r.do(rollout.Abort{Service: "chat"})
			if v := r.view(); !v.State.Rollout.Aborting {
				t.Errorf("with a store of %v: aborted, and the view says %+v", delay, v.Reason)
			}
			r.untilPhase(state.Steady)
		})
	}
}

// A command that comes while a write hangs is refused in time, and nothing of it is
// done later; one whose own write hangs is not known to be done or not.
func TestCommandDuringAWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 2, 2, 60)
		r.start()
		r.do(promoteGreen)
		r.until("at step 1", func(v rollout.View) bool { return v.State.Rollout != nil && v.State.Rollout.Step == 1 })
		r.do(rollout.SetPace{Service: "chat", Funnel: units.Funnel{Close: 5, Every: units.Duration(3 * time.Second)}})
		r.shelf.hang(true)
		r.until("writing", func(v rollout.View) bool { return strings.Contains(v.Reason.Text, "no answer yet") })
		began := time.Now()
		text := r.refused(rollout.Pause{Service: "chat"}, rollout.NotStored)
		if took := time.Since(began); took > rollout.StorePatience || !strings.Contains(text, "nothing was changed") && !strings.Contains(text, "not known") {
			t.Errorf("after %v: %s", took, text)
		}
		time.Sleep(10 * time.Second)
		r.shelf.hang(false)
		r.until("going on", func(v rollout.View) bool { return v.Reason.Code != rollout.StoreFailing })
		if r.view().State.Rollout.Paused {
			t.Error("what was refused is done")
		}
		r.untilPhase(state.Steady)
		r.once(60)
	})
}

// Another replica writes while this one does: theirs counts, and the decision is taken
// again about it.
func TestConflictDuringAWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 2, 2, 40)
		r.start()
		r.do(promoteGreen)
		r.until("at step 1", func(v rollout.View) bool { return v.State.Rollout != nil && v.State.Rollout.Step == 1 })
		r.shelf.slow(300 * time.Millisecond)
		r.until("writing", func(v rollout.View) bool { return strings.Contains(v.Reason.Text, "no answer yet") })
		r.shelf.slow(0)
		theirs := r.shelf.state(t, "chat")
		theirs.Rollout.Paused = true
		data, err := state.Encode(theirs)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.shelf.Replace(t.Context(), "chat", r.shelf.read("chat"), data); err != nil {
			t.Fatal(err)
		}
		r.untilCode(rollout.Paused)
		closed := r.closed()
		time.Sleep(time.Minute)
		if r.closed() > closed+10 {
			t.Errorf("%d closes although another replica has paused it", r.closed()-closed)
		}
		r.do(rollout.Resume{Service: "chat"})
		r.untilPhase(state.Steady)
		r.once(40)
	})
}

// A clock that was ahead when the state was stored, and was set right since, or one
// that was behind, changes nothing of the pace.
func TestClockIsSet(t *testing.T) {
	for _, ahead := range []time.Duration{time.Hour, -time.Hour, 4 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, 2, 2, 40)
			r.start()
			r.do(promoteGreen)
			r.until("at step 1", func(v rollout.View) bool { return v.State.Rollout != nil && v.State.Rollout.Step == 1 })
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
			theirs := r.shelf.state(t, "chat").Dated(func(at time.Time) time.Time { return at.Add(ahead) })
			data, err := state.Encode(theirs)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.shelf.Replace(t.Context(), "chat", r.shelf.read("chat"), data); err != nil {
				t.Fatal(err)
			}
			r.run()
			r.configure("chat")
			r.discover()
			began := time.Now()
			r.untilPhase(state.Steady)
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("with a clock that was %v ahead three steps took %v", ahead, took)
			}
			r.once(40)
		})
	}
}
