package control

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

var promoteGreen = rollout.Promote{Service: "chat", Target: discovery.Green}

// held sums what a colour's gates hold.
func (r *rig) held(c discovery.Colour) int {
	n := 0
	for _, h := range r.byName() {
		if string(h.id[:1]) == string(c[:1]) {
			n += h.Status().Active
		}
	}
	return n
}

// once holds what every rollout must have been: n closes, none twice, at most
// the cap in any window.
func (r *rig) once(n int) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.closes) != n {
		r.t.Errorf("%d closes, want %d", len(r.closes), n)
	}
	from := 0
	for i, at := range r.closes {
		for at.Sub(r.closes[from]) >= 3*time.Second-10*time.Millisecond {
			from++
		}
		if i-from+1 > 11 {
			r.t.Errorf("%d closes within 3 s, the cap is 10 and one at an edge", i-from+1)
		}
	}
}

func TestControllerPromotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 3, 3, 40)
		r.start()
		plan, err := r.control.Plan(t.Context(), "chat", discovery.Green, policy.Overrides{})
		if err != nil || plan.Connections != 40 || plan.Steps != 4 {
			t.Errorf("plan: %+v, %v", plan, err)
		}
		began := time.Now()
		if a := r.do(promoteGreen); a.Rollout != "chat-1" {
			t.Errorf("answer: %+v", a)
		}
		if got := r.shelf.state(t, "chat").Phase(); got == state.Steady {
			t.Error("the command was answered before it was stored")
		}
		v := r.untilPhase(state.Steady)
		if took := time.Since(began); took > plan.Takes.D()+3*time.Second {
			t.Errorf("took %v, planned %v", took, plan.Takes)
		}
		rec := v.State.History[0]
		if v.State.Live != discovery.Green || rec.Outcome != state.Done || rec.Evicted != 40 || rec.Returned == nil || *rec.Returned != 40 {
			t.Errorf("live %s, %+v", v.State.Live, rec)
		}
		if r.held(discovery.Blue) != 0 || r.held(discovery.Green) != 40 {
			t.Errorf("blue holds %d, green %d", r.held(discovery.Blue), r.held(discovery.Green))
		}
		r.once(40)
		if !strings.Contains(r.log.String(), `msg=rollout service=chat phase=draining reason="blue lets at most 10 connections go every 3s"`) {
			t.Errorf("the log lacks the reason:\n%s", r.log)
		}
	})
}

// A Controller that ends in the middle is as good as one that dies: another goes
// on from what is stored, and nobody is closed twice.
func TestControllerGoesOnAfterRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 2, 2, 30)
		r.start()
		r.do(promoteGreen)
		for range 12 {
			time.Sleep(1100 * time.Millisecond)
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(200 * time.Millisecond)
			r.run()
			r.configure("chat")
			r.discover()
		}
		v := r.untilPhase(state.Steady)
		if rec := v.State.History[0]; v.State.Live != discovery.Green || rec.Evicted != 30 || *rec.Returned != 30 {
			t.Errorf("live %s, %+v", v.State.Live, rec)
		}
		r.once(30)
	})
}

func TestStoreFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 2, 2, 40)
		r.start()
		r.do(promoteGreen)
		r.until("at step 2", func(v rollout.View) bool { return v.State.Rollout != nil && v.State.Rollout.Step == 2 })
		r.shelf.broken(errors.New("no space left on device"))
		v := r.untilCode(rollout.StoreFailing)
		if want := "waiting: the next state cannot be stored: no space left on device"; v.Reason.Text != want {
			t.Errorf("reason %q, want %q", v.Reason.Text, want)
		}
		// Both may be the same Consul: neither hides the other.
		gone := discovery.Snapshot{"chat": {Instances: r.fleet.Instances, Err: "Consul cannot be read: EOF"}}
		r.control.Discovered(gone)
		time.Sleep(2 * time.Second)
		if want := "waiting: the next state cannot be stored: no space left on device; besides: Consul cannot be read: EOF"; r.view().Reason.Text != want {
			t.Errorf("reason %q, want %q", r.view().Reason.Text, want)
		}
		r.discover()
		if text := r.refused(rollout.Pause{Service: "chat"}, rollout.NotStored); !strings.Contains(text, "nothing was changed") {
			t.Error(text)
		}
		b1 := r.house("b1")
		time.Sleep(20 * time.Second)
		r.mu.Lock()
		steps := slices.Clone(b1.steps)
		r.mu.Unlock()
		if slices.Contains(steps, "1.3") || r.view().State.Rollout.Paused {
			t.Errorf("something happened that is not stored: %v", steps)
		}
		r.once(20)
		r.shelf.broken(nil)
		r.untilPhase(state.Steady)
		r.once(40)
	})
}

// A store that hangs is waited for a few seconds: the reason shows, commands are
// answered, and the rollout goes on when it answers again.
func TestStoreHanging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 2, 2, 40)
		r.start()
		r.do(promoteGreen)
		r.until("at step 2", func(v rollout.View) bool { return v.State.Rollout != nil && v.State.Rollout.Step == 2 })
		r.shelf.hang(true)
		r.untilCode(rollout.StoreFailing)
		began := time.Now()
		r.refused(rollout.Pause{Service: "chat"}, rollout.NotStored)
		if took := time.Since(began); took > 6*rollout.StorePatience {
			t.Errorf("a command was answered after %v", took)
		}
		r.shelf.hang(false)
		r.untilPhase(state.Steady)
		r.once(40)
	})
}

// Somebody else writes the state: it is read again, and its word counts.
func TestConflictIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 2, 2, 40)
		r.start()
		r.do(promoteGreen)
		r.until("at step 1", func(v rollout.View) bool { return v.State.Rollout != nil && v.State.Rollout.Step == 1 })
		theirs := r.shelf.state(t, "chat")
		theirs.Rollout.Paused = true
		data, err := state.Encode(theirs)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.shelf.Replace(t.Context(), "chat", r.shelf.data["chat"], data); err != nil {
			t.Fatal(err)
		}
		r.untilCode(rollout.Paused)
		r.do(rollout.Resume{Service: "chat"})
		r.untilPhase(state.Steady)
		r.once(40)
	})
}

// What takes long is asked in its own goroutine: the others are told on time.
func TestHangingInstanceHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 3, 3, 30)
		r.start()
		r.do(promoteGreen)
		r.until("at step 1", func(v rollout.View) bool { return v.State.Rollout != nil && v.State.Rollout.Step == 1 })
		b3 := r.house("b3")
		r.set(func() { b3.hanging = true })
		began := time.Now()
		v := r.untilCode(rollout.Unreachable)
		if r.house("b1").Status().Active+r.house("b2").Status().Active > 0 || time.Since(began) > 10*time.Second {
			t.Errorf("the others are not empty %v after one hung", time.Since(began))
		}
		if want := "b3 cannot be told to let go (drain http://10.1.0.2:9000: no answer within 2s)"; !strings.Contains(v.Reason.Text, want) {
			t.Errorf("reason %q lacks %q", v.Reason.Text, want)
		}
	})
}

func TestNothingBeforeEverythingIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1, 1, 5)
		r.run()
		r.refused(promoteGreen, rollout.NotReady)
		r.configure("chat", "feed")
		r.discover()
		time.Sleep(5 * time.Second)
		if err := r.control.Ready(); err == nil || !strings.Contains(err.Error(), "service feed has not been read from discovery yet") {
			t.Errorf("ready: %v", err)
		}
		if views, _ := r.control.Views(); views != nil || r.told() > 0 || r.shelf.written() > 0 {
			t.Errorf("%d views, %d publishes, %d writes before everything was read", len(views), r.told(), r.shelf.written())
		}
		if text := r.refused(promoteGreen, rollout.NotReady); !strings.Contains(text, "service feed") {
			t.Error(text)
		}
		_, newer := r.control.Views()
		r.control.Discovered(discovery.Snapshot{"chat": r.fleet, "feed": {}})
		<-newer
		views, _ := r.control.Views()
		_, wishes := r.published()
		if err := r.control.Ready(); err != nil || len(views) != 2 || len(wishes) != 2 {
			t.Errorf("ready: %v, %d views, %d wishes", err, len(views), len(wishes))
		}
		if v := views["feed"]; v.State.Service != "feed" || v.Policy.Funnel.Close != 10 || v.Reason.Code != rollout.IsSteady {
			t.Errorf("an incomplete view: %+v", v)
		}
		r.refused(rollout.Promote{Service: "mail", Target: discovery.Green}, rollout.UnknownService)
		if _, err := r.control.Plan(t.Context(), "mail", discovery.Green, policy.Overrides{}); err == nil {
			t.Error("an unknown service has a plan")
		}

		// A service that is added later keeps nobody waiting.
		r.configure("chat", "feed", "mail")
		r.do(promoteGreen)
		r.untilPhase(state.Steady)
	})
}

func TestRetiredService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1, 1, 1)
		r.start()
		r.configure()
		v := r.untilCode(rollout.IsRetired)
		if !v.Wish.Retired || v.Wish.Gone || len(v.Wish.Orders) > 0 {
			t.Errorf("wish: %+v", v.Wish)
		}
		r.refused(promoteGreen, rollout.UnknownService)
		time.Sleep(time.Minute)
		if v := r.view(); v.Wish.Gone || len(v.State.Members) != 1 {
			t.Errorf("forgotten while it holds a connection: %+v", v.State)
		}
		r.kill("b1")
		time.Sleep(time.Minute)
		if v := r.view(); !v.Wish.Gone {
			t.Errorf("not forgotten: %+v", v.State)
		}
		r.build(discovery.Blue, 0)
		r.configure("chat")
		r.discover()
		v = r.untilCode(rollout.IsSteady)
		if v.State.Retired || len(v.State.Members) != 2 {
			t.Errorf("put back: %+v", v.State)
		}
	})
}

func TestUnpublishedIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1, 1, 10)
		r.start()
		r.set(func() { r.refuse = "listener web would change" })
		force := promoteGreen
		force.Force = true
		r.do(force)
		v := r.until("unpublished", func(v rollout.View) bool { return v.Seen.Unpublished != "" })
		tries, _ := r.published()
		time.Sleep(10 * time.Second)
		if again, _ := r.published(); again-tries < 5 || again-tries > 11 {
			t.Errorf("%d tries in 10 s, want about one a second", again-tries)
		}
		if v = r.view(); v.Reason.Code != rollout.Unpublished || v.State.Phase() != state.Opening {
			t.Errorf("%s: %+v", v.State.Phase(), v.Reason)
		}
		r.once(0)
		r.set(func() { r.refuse = "" })
		r.untilPhase(state.Steady)
		r.once(10)
	})
}

func TestCommandsAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 2, 2, 60)
		r.start()
		writes := r.shelf.written()
		if a := r.do(rollout.Promote{Service: "chat", Target: discovery.Blue}); a.Rollout != "" || r.shelf.written() != writes {
			t.Errorf("promoting the live colour: %+v, %d writes", a, r.shelf.written()-writes)
		}
		r.refused(rollout.Pause{Service: "chat"}, rollout.NoRollout)
		r.do(promoteGreen)
		r.refused(promoteGreen, rollout.InProgress)
		r.untilPhase(state.Draining)
		r.do(rollout.SetPace{Service: "chat", Funnel: units.Funnel{Close: 5, Every: units.Duration(3 * time.Second)}})
		time.Sleep(4 * time.Second)
		r.do(rollout.Pause{Service: "chat"})
		time.Sleep(100 * time.Millisecond)
		closed := r.closed()
		time.Sleep(10 * time.Second)
		if r.closed() != closed || closed == 0 {
			t.Errorf("%d closes before the pause, %d after", closed, r.closed()-closed)
		}
		r.do(rollout.Resume{Service: "chat"})
		time.Sleep(4 * time.Second)
		r.do(rollout.Abort{Service: "chat"})
		v := r.untilPhase(state.Steady)
		if v.State.Live != discovery.Blue || v.State.History[0].Outcome != state.Aborted || r.held(discovery.Blue) != 60 {
			t.Errorf("live %s, blue holds %d, %+v", v.State.Live, r.held(discovery.Blue), v.State.History[0])
		}
		over, cancel := context.WithCancelCause(t.Context())
		why := errors.New("the operator left")
		cancel(why)
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		if _, err := r.control.Do(over, promoteGreen); !errors.Is(err, why) {
			t.Errorf("asked with nobody there: %v", err)
		}
		r.run()
	})
}

// What cannot be read stops the start, and is not overwritten.
func TestUnreadableStateStopsTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1, 1, 0)
		bad := state.Stored{Data: []byte(`{"format":1,"service":"chat","live":"red"}`), Version: "7"}
		r.shelf.data["chat"] = bad
		r.run()
		r.configure("chat")
		r.discover()
		time.Sleep(10 * time.Second)
		if err := r.stop(); err == nil || !strings.Contains(err.Error(), `load the stored state of chat: state of chat: live colour is "red"; restore it`) {
			t.Errorf("Run: %v", err)
		}
		if got := r.shelf.data["chat"]; got.Version != "7" || r.told() > 0 {
			t.Errorf("overwritten: %+v, %d publishes", got, r.told())
		}
		delete(r.shelf.data, "chat")
		r.shelf.broken(errors.New("connection refused"))
		r.run()
		if err := r.stop(); err == nil || !strings.Contains(err.Error(), "load the stored state: connection refused") {
			t.Errorf("Run: %v", err)
		}
		r.shelf.broken(nil)
		r.run()
	})
}

// The store fails before anything was ever stored: nobody hears anything.
func TestStoreFailsAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1, 1, 1)
		r.run()
		time.Sleep(time.Second) // loaded
		r.shelf.broken(errors.New("read-only file system"))
		r.configure("chat")
		r.discover()
		time.Sleep(10 * time.Second)
		if r.told() > 0 || r.control.Ready() == nil {
			t.Errorf("%d publishes although nothing is stored", r.told())
		}
		r.shelf.broken(nil)
		time.Sleep(2 * time.Second)
		if err := r.control.Ready(); err != nil || r.told() == 0 {
			t.Errorf("ready: %v, %d publishes", err, r.told())
		}
	})
}
