package rollout_test

import (
	"slices"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/sim"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// The cap at the size of the demo: measured exactly, window by window.
func TestSmallFleetKeepsTheCap(t *testing.T) {
	for connections := range 40 {
		w := newWorld(t, small(3, 3, 80+connections, 2))
		w.Pass(3 * time.Second)
		w.must(rollout.Promote{Service: "chat", Target: discovery.Green})
		w.until(2*time.Minute, w.Steady)
		if got := w.Peak(3 * time.Second); got > 11 {
			t.Errorf("%d connections: %d closes in 3 s, the cap is 10 and one at an edge", 80+connections, got)
		}
	}
}

// FuzzPromises plays what an operator, instances, proxies, discovery and the
// machine under rolloutd may do, in any order and at any moment, and holds the
// six promises of the README against it. The bytes are the story.
func FuzzPromises(f *testing.F) {
	f.Add([]byte{0, 40, 1, 20, 2, 30, 3, 50})
	f.Add([]byte{0, 60, 5, 10, 5, 10, 3, 40, 5, 3, 5, 9, 5, 60})
	f.Add([]byte{136, 60, 1, 250, 2, 250, 14, 250, 5, 250, 1, 50, 2, 50}) // capacity
	f.Add([]byte{34, 60, 5, 10, 14, 250, 3, 250, 5, 50, 13, 50})          // window
	f.Add([]byte{68, 60, 5, 40, 1, 30, 2, 200, 6, 40, 3, 77})             // stagger
	f.Add([]byte{17, 60, 15, 100, 5, 50, 15, 50, 14, 60})                 // gates
	f.Add([]byte{0, 250, 10, 20, 16, 250, 5, 100})                        // supersede
	f.Add([]byte{238, 250, 10, 20, 16, 250, 3, 100, 15, 100, 15, 50})     // all of it
	f.Add([]byte{0, 100, 19, 20, 5, 20, 16, 100, 19, 50})                 // the state is lost
	f.Add([]byte{0, 2, 19, 20, 0, 20, 3, 20, 19, 40, 19, 50})
	f.Add([]byte{0, 20, 6, 30, 7, 10, 8, 10, 9, 90, 10, 40, 11, 9, 12, 40, 13, 30, 4, 77})
	f.Add([]byte{0, 60, 18, 100, 18, 3, 5, 10, 18, 9, 18, 40, 3, 90, 18, 5})
	f.Add([]byte{48, 60, 18, 100, 5, 3, 18, 40, 3, 90, 18, 5, 5, 30}) // nameless
	f.Add([]byte{0, 60, 19, 100, 5, 50, 19, 200, 3, 60, 19, 100})     // twins
	f.Add([]byte{20, 60, 20, 61, 0, 90, 20, 62, 20, 5, 21, 90})       // tags, and half a catalogue
	f.Add([]byte{21, 200, 14, 20, 5, 40, 0, 60, 21, 201, 5, 200})
	f.Add([]byte{0, 60, 23, 51, 5, 100, 9, 50, 5, 200, 23, 200, 9, 100}) // cut off
	f.Add([]byte{23, 51, 0, 250, 14, 250, 9, 250, 23, 250, 5, 30, 9, 30})
	f.Add([]byte{0, 60, 25, 61, 25, 33, 5, 10, 26, 57, 25, 11, 3, 90, 25, 50})   // liars
	f.Add([]byte{32, 60, 218, 1, 217, 2, 0, 250, 0, 250, 217, 1, 5, 100})        // slow clients, and others that come by themselves
	f.Add([]byte{32, 60, 216, 2, 218, 1, 0, 250, 216, 3, 0, 250, 216, 1, 3, 90}) // nobody tells them apart
	f.Add([]byte{0, 60, 25, 33, 219, 2, 25, 33, 5, 100, 220, 3, 0, 200})         // counters alone, and a boaster
	f.Add([]byte{0, 60, 212, 5, 5, 200, 212, 12, 5, 250, 5, 250})                // one that says it accepted nobody, and a forger
	f.Fuzz(func(t *testing.T, story []byte) {
		if len(story) > 60 {
			story = story[:60]
		}
		s := newStory(t, len(story) > 0 && story[0]&16 != 0)
		if len(story) > 0 && story[0]&32 != 0 {
			s.Policy.Window = 15
		}
		if len(story) > 0 && story[0]&64 != 0 {
			s.Policy.Stagger = policy.Stagger{Instances: units.Portion{Number: 2}, Soak: units.Duration(4 * time.Second)}
		}
		if len(story) > 0 && story[0] >= 128 {
			for _, in := range s.Fleet.Colour(discovery.Green) {
				in.SetCapacity(20) // 60 for the 90 that are to come
			}
		}
		for len(story) >= 2 {
			s.act(story[0], int(story[1]))
			s.Pass(time.Duration(story[1]) * 37 * time.Millisecond)
			s.alive()
			story = story[2:]
		}
		s.heal()
		s.check()
	})
}

// story is a world that is meddled with, and what the promises are held against.
type story struct {
	world
	t     *testing.T
	caps  []capAt
	abort bool
	begun bool
	blind bool // discovery cannot be read
	shut  bool // the gate is
	spare int
	lost  int
	twins map[discovery.InstanceID]bool
	away  [2]bool // the colour is not in the catalogue
	newer bool    // a third release superseded the rollout to green
	// forgot: the state was lost, and with it what the rollout was and where it goes.
	forgot bool
	// guessed: for a while the application did not count tickets.
	guessed bool
}

type capAt struct {
	at    time.Time
	close int
}

// newStory is a world whose instances may have no name for their processes.
func newStory(t *testing.T, nameless bool) *story {
	conf := small(4, 3, 90, 2)
	conf.Nameless = nameless
	s := &story{world: newWorld(t, conf), t: t, twins: map[discovery.InstanceID]bool{}}
	s.Policy.Gates = []policy.Gate{{Name: "errors", Command: []string{"ask"}}}
	s.Outside.Gate("errors", observed.Reading{Open: true})
	s.Pass(3 * time.Second)
	return s
}

// accepts reports whether a command was carried out.
func (s *story) accepts(c rollout.Command) bool {
	_, err := s.Do(c)
	return err == nil
}

// kind is which thing a byte stands for. Those that came later have the highest bytes, so
// that the stories told before go on meaning the same.
func kind(n byte) int {
	switch {
	case n >= 216:
		return 27 + int(n-216)%5
	case n >= 212:
		return 32
	}
	return int(n) % 27
}

// act does the n-th thing that can happen, to the arg-th whom it can happen to.
func (s *story) act(n byte, arg int) {
	all := s.Fleet.Instances()
	in := all[arg%len(all)]
	edge := s.Edge.Proxy([]string{"edge-1", "edge-2"}[arg%2])
	switch kind(n) {
	case 0:
		if !s.begun && s.accepts(rollout.Promote{Service: "chat", Target: discovery.Green, Force: true}) {
			s.begun = true
			s.cap(10)
		}
	case 1:
		s.accepts(rollout.Pause{Service: "chat"})
	case 2:
		s.accepts(rollout.Resume{Service: "chat"})
	case 3:
		s.abort = s.accepts(rollout.Abort{Service: "chat"}) || s.abort
	case 4:
		n := 1 + arg%20
		if s.accepts(rollout.SetPace{Service: "chat", Funnel: units.Funnel{Close: n, Every: units.Duration(3 * time.Second)}}) {
			s.cap(n)
		}
	case 5:
		s.RestartAhead([]time.Duration{0, 0, time.Hour, -time.Hour, 2 * time.Second}[arg%5])
	case 6: // it dies; the registry notices
		s.lost += in.Holds()
		in.Vanish()
	case 7:
		in.Deaf = !in.Deaf
	case 8:
		s.blind = !s.blind
		s.Fleet.Discover(map[bool]string{true: "Consul cannot be read"}[s.blind], "")
	case 9:
		if edge.Gone() {
			edge.Return()
		} else {
			edge.Leave()
		}
	case 10: // another old instance appears
		if s.spare < 3 {
			s.spare++
			s.Fleet.Join(discovery.Blue, 11+s.spare)
		}
	case 11:
		in.Deregister()
	case 12:
		s.Outside.Store(!s.Outside.StoreIsUp())
	case 13: // connections end by themselves
		in.End(arg % 7)
	case 14: // clients come that were never there
		s.Crowd.Visit(arg % 9)
	case 15:
		s.shut = !s.shut
		s.Outside.Gate("errors", observed.Reading{Open: !s.shut, Unanswered: arg%2 == 0, Text: "gate errors is closed"})
	case 16: // a newer release of the colour that drains, if there is one, is promoted
		if s.accepts(rollout.Promote{Service: "chat", Target: discovery.Blue, Force: true}) && s.State().Rollout != nil {
			s.newer, s.abort = true, false
			s.cap(10)
		}
	case 17: // an xDS client that is no Envoy
		s.Edge.Proxy("tool-1").Estrange()
	case 18: // it is started anew before anybody notices that it died
		if well(in) {
			s.lost += in.Holds()
			in.Start()
		}
	case 23: // an Envoy and rolloutd do not hear each other, and its clients still come
		edge.Cut()
	case 25: // it lies about what it holds, where the proxies say what that is
		s.Edge.ReportLoads()
		in.Claims = []*int{nil, new(0), new(2 * in.Holds()), new(1_000_000)}[arg/len(all)%4]
	case 26: // it remembers an epoch from elsewhere
		in.Stranger = uint64(arg/len(all)%2) * contract.MaxTotal
	case 24:
		in.Mute = !in.Mute
	case 27: // the application says other things of returning clients
		tells := sim.Tells(arg % 4)
		s.guessed = s.guessed || tells != sim.Tickets
		s.Fleet.Tell(tells)
	case 28: // clients come and go by themselves, and truly say that they were here before
		s.Crowd.Flap([]int{0, 1, 5}[arg%3])
	case 29: // clients take longer to come back
		s.Crowd.Back(back([]time.Duration{200 * time.Millisecond, 9 * time.Second}[arg%2]))
	case 30: // the proxies' load reports leave everything out, their counters do not
		s.Edge.ReportLoads()
		s.Edge.Omit(arg%2 == 0)
	case 31: // it boasts of connections that it never let go
		s.Edge.ReportLoads()
		in.Boasts += uint64(3 * in.Holds())
	case 32: // it says that it accepted nobody, or that all whom it accepted brought a ticket
		in.Modest, in.Forges = arg/len(all)%2 == 0, arg/len(all)%2 == 1
		s.guessed = s.guessed || in.Forges
	case 19: // rolloutd dies, and what it remembers with it
		s.forgot = true
		s.Lose()
	case 20: // its process is registered once more, as one of either colour
		if id := in.ID + "-twin"; s.twins[id] {
			s.Fleet.Untwin(id)
			s.twins[id] = false
		} else {
			s.Fleet.Twin(in, id, discovery.Colours[arg/len(all)%2])
			s.twins[id] = true
		}
	case 21: // its tag is flipped
		in.Recolour(in.Colour.Other())
	case 22: // a colour leaves the catalogue, or comes back
		s.away[arg%2] = !s.away[arg%2]
		for _, in := range s.Fleet.Colour(discovery.Colours[arg%2]) {
			if s.away[arg%2] {
				in.Deregister()
			} else {
				in.Register()
			}
		}
	}
}

func (s *story) cap(n int) { s.caps = append(s.caps, capAt{s.Now(), n}) }

// heal mends everything: a rollout must then end by itself.
func (s *story) heal() {
	s.Outside.Store(true)
	s.Crowd.Flap(0)
	s.Edge.Omit(false)
	s.Fleet.Discover("", "")
	s.Outside.Gate("errors", observed.Reading{Open: true})
	for id := range s.twins {
		s.Fleet.Untwin(id)
	}
	for i, c := range discovery.Colours {
		for _, in := range s.Fleet.Colour(c) {
			in.Recolour(s.colour(in))
			if s.away[i] {
				in.Register()
			}
		}
	}
	for _, in := range s.Fleet.Instances() {
		in.Deaf, in.Claims, in.Stranger, in.Modest, in.Forges = false, nil, 0, false, false
		in.SetCapacity(0)
		if in.Dead() {
			in.Deregister()
		}
	}
	for _, c := range discovery.Colours {
		if !slices.ContainsFunc(s.Fleet.Instances(), func(in *sim.Instance) bool { return well(in) && s.colour(in) == c }) {
			s.Fleet.Join(c, 21)
		}
	}
	if r := s.State().Rollout; r != nil && !slices.ContainsFunc(s.Fleet.Instances(), func(in *sim.Instance) bool {
		return well(in) && s.colour(in) == r.To && !s.State().Members[in.ID].Outgoing
	}) {
		s.Fleet.Join(r.To, 31) // the newer release went away again
	}
	for _, node := range []string{"edge-1", "edge-2"} {
		s.Edge.Proxy(node).Return()
	}
	s.accepts(rollout.Resume{Service: "chat"})
	s.Run(time.Minute, func() bool { return !s.State().Unsettled })
	if s.State().Unsettled { // an operator looks, and says it
		s.must(rollout.Adopt{Service: "chat", Live: discovery.Green})
	}
	if !s.Run(20*time.Minute, s.Steady) {
		s.t.Fatalf("the rollout does not end although everything is well: %s", s.Reason().Text)
	}
}

func well(in *sim.Instance) bool { return !in.Dead() && !in.Gone() }

func (s *story) check() {
	s.t.Helper()
	// 1. At most the cap, and one at an edge. An order takes a few ms to arrive,
	// not always the same. (3., never onto the dead, and 4., never past the room,
	// are held at each eviction; 6. is that nothing else evicts.)
	const every = 3*time.Second - 5*time.Millisecond
	from, closes := 0, s.Closes()
	for i, e := range closes {
		for e.At.Sub(closes[from].At) >= every {
			from++
		}
		most := 0
		for j, c := range s.caps {
			over := j+1 < len(s.caps) && s.caps[j+1].at.Before(closes[from].At.Add(-every))
			if !over && c.at.Before(e.At) {
				most = max(most, c.close)
			}
		}
		if n := i - from + 1; n > most+1 {
			s.t.Fatalf("%d closes in the 3 s before %v, the cap is %d", n, e.At.Sub(sim.Epoch), most)
		}
	}
	// 2. Once: without an abort no client is closed on the target.
	for _, e := range closes {
		if e.Of == discovery.Green && !s.abort && !s.newer && !s.forgot {
			s.t.Fatalf("green closed a connection at %v although nothing was aborted", e.At.Sub(sim.Epoch))
		}
	}
	if !s.begun && len(closes) > 0 {
		s.t.Fatalf("%d closes without a rollout", len(closes))
	}
	if s.forgot {
		return // where it should end nobody remembers; the world holds that it is found
	}
	// 5. Back is as gentle as forth: it ends where it should.
	want := discovery.Blue
	if s.begun && s.abort == s.newer {
		want = discovery.Green
	}
	if live := s.State().Live; live != want {
		s.t.Fatalf("live is %s, want %s", live, want)
	}
	if window := int(s.Policy.Window); window > 0 && s.lost == 0 && !s.guessed && s.Furthest() > window {
		s.t.Fatalf("%d clients were on their way at once, the window is %d", s.Furthest(), window)
	}
	for _, in := range s.Fleet.Colour(want.Other()) {
		if s.begun && well(in) && in.Holds() > 0 && s.colour(in) != want {
			s.t.Fatalf("%s still holds %d although the rollout is over", in.Name(), in.Holds())
		}
	}
}
