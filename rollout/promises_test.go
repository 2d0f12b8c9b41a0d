package rollout

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// The cap at the size of the demo: measured exactly, window by window.
func TestSmallFleetKeepsTheCap(t *testing.T) {
	for connections := range 40 {
		w := newWorld(t, 3, 3, 80+connections, 2)
		w.run(3*time.Second, func() bool { return false })
		if err := w.do(Promote{Service: "chat", Target: discovery.Green}); err != nil {
			t.Fatal(err)
		}
		if !w.run(2*time.Minute, w.steady) {
			t.Fatalf("not done: %s", w.reason.Text)
		}
		if got := peak(w.evictions, 3*time.Second); got > 11 {
			t.Errorf("%d connections: %d closes in 3 s, the cap is 10 and one at an edge", 80+connections, got)
		}
	}
}

// FuzzPromises plays what an operator, instances, proxies, discovery and the
// machine under rolloutd may do, in any order and at any moment, and holds the
// six promises of DESIGN.md against it. The bytes are the story.
func FuzzPromises(f *testing.F) {
	f.Add([]byte{0, 40, 1, 20, 2, 30, 3, 50})
	f.Add([]byte{0, 60, 5, 10, 5, 10, 3, 40, 5, 3, 5, 9, 5, 60})
	f.Add([]byte{136, 60, 1, 250, 2, 250, 14, 250, 5, 250, 1, 50, 2, 50}) // capacity
	f.Add([]byte{34, 60, 5, 10, 14, 250, 3, 250, 5, 50, 13, 50})          // window
	f.Add([]byte{68, 60, 5, 40, 1, 30, 2, 200, 6, 40, 3, 77})             // stagger
	f.Add([]byte{17, 60, 15, 100, 5, 50, 15, 50, 14, 60})                 // gates
	f.Add([]byte{0, 250, 10, 20, 16, 250, 5, 100})                        // supersede
	f.Add([]byte{238, 250, 10, 20, 16, 250, 3, 100, 15, 100, 15, 50})     // all of it
	f.Add([]byte{0, 20, 6, 30, 7, 10, 8, 10, 9, 90, 10, 40, 11, 9, 12, 40, 13, 30, 4, 77})
	f.Fuzz(func(t *testing.T, story []byte) {
		if len(story) > 60 {
			story = story[:60]
		}
		s := newStory(t)
		if len(story) > 0 && story[0]&32 != 0 {
			s.policy.Window = 15
		}
		if len(story) > 0 && story[0]&64 != 0 {
			s.policy.Stagger = Stagger{Instances: units.Portion{Number: 2}, Soak: units.Duration(4 * time.Second)}
		}
		if len(story) > 0 && story[0] >= 128 {
			for _, in := range s.byColourAll(discovery.Green) {
				in.Capacity = 20 // 60 for the 90 that are to come
			}
		}
		for len(story) >= 2 {
			s.act(story[0], int(story[1]))
			s.run(time.Duration(story[1]) * 37 * time.Millisecond)
			story = story[2:]
		}
		s.heal()
		s.check()
	})
}

// story is a world that is meddled with, and what the promises are held against.
type story struct {
	*world
	t     *testing.T
	caps  []capAt
	abort bool
	begun bool
	spare int
	lost  int
	newer bool // a third release superseded the rollout to green
}

type capAt struct {
	at    time.Time
	close int
}

func newStory(t *testing.T) *story {
	w := newWorld(t, 4, 3, 90, 2)
	w.policy.Gates = []Gate{{Name: "errors", Command: []string{"ask"}}}
	w.gates["errors"] = &Reading{Open: true}
	s := &story{world: w, t: t}
	s.run(3 * time.Second)
	return s
}

func (s *story) run(d time.Duration) { s.world.run(d, func() bool { return false }) }

// act does the n-th thing that can happen, to the arg-th whom it can happen to.
func (s *story) act(n byte, arg int) {
	all := slices.Sorted(maps.Keys(s.instances))
	in := s.instances[all[arg%len(all)]]
	edge := s.proxies[[]string{"edge-1", "edge-2"}[arg%2]]
	switch n % 17 {
	case 0:
		if s.begun {
			return
		}
		if err := s.do(Promote{Service: "chat", Target: discovery.Green, Force: true}); err == nil && !s.storeDown {
			s.begun = true
			s.cap(10)
		}
	case 1:
		_ = s.do(Pause{Service: "chat"})
	case 2:
		_ = s.do(Resume{Service: "chat"})
	case 3:
		if err := s.do(Abort{Service: "chat"}); err == nil && !s.storeDown {
			s.abort = true
		}
	case 4:
		n := 1 + arg%20
		if err := s.do(SetPace{Service: "chat", Funnel: units.Funnel{Close: n, Every: units.Duration(3 * time.Second)}}); err == nil && !s.storeDown {
			s.cap(n)
		}
	case 5:
		s.restart()
	case 6: // it dies; the registry notices
		if !in.dead {
			in.dead, in.Health = true, discovery.Critical
			s.lost += in.status.Active
		}
	case 7:
		in.deaf = !in.deaf
	case 8:
		s.fleetErr = map[bool]string{true: "", false: "Consul cannot be read"}[s.fleetErr != ""]
	case 9:
		edge.connected, edge.lost, edge.told = !edge.connected, s.now, ""
	case 10: // another old instance appears
		if s.spare < 3 {
			s.spare++
			s.add(discovery.Blue, 10+s.spare)
			s.byColour[discovery.Blue] = nil
		}
	case 11:
		in.gone = true
	case 12:
		s.storeDown = !s.storeDown
	case 13: // connections end by themselves
		in.status.Active -= min(in.status.Active, arg%7)
	case 14: // clients come that were never there
		for range arg % 9 {
			s.arriveClient(favoured(s.state), false)
		}
	case 15:
		s.gates["errors"] = &Reading{Open: !s.gates["errors"].Open, Unanswered: arg%2 == 0, Text: "gate errors is closed"}
	case 16: // a newer release of the colour that drains, if there is one, is promoted
		if err := s.do(Promote{Service: "chat", Target: discovery.Blue, Force: true}); err == nil && !s.storeDown && s.state.Rollout != nil {
			s.newer, s.abort = true, false
			s.cap(10)
		}
	}
	s.dirty = true
}

func (s *story) cap(n int) { s.caps = append(s.caps, capAt{s.now, n}) }

// heal mends everything: a rollout must then end by itself.
func (s *story) heal() {
	s.storeDown, s.fleetErr = false, ""
	s.gates["errors"] = &Reading{Open: true}
	for _, in := range s.instances {
		in.deaf, in.Capacity = false, 0
		if in.dead {
			in.gone = true
		}
	}
	if !slices.ContainsFunc(s.byColourAll(discovery.Green), (*instance).well) {
		s.add(discovery.Green, 20)
	}
	if !slices.ContainsFunc(s.byColourAll(discovery.Blue), (*instance).well) {
		s.add(discovery.Blue, 20)
	}
	if r := s.state.Rollout; r != nil && !slices.ContainsFunc(s.byColourAll(r.To), func(in *instance) bool {
		return in.well() && !s.state.Members[in.ID].Outgoing
	}) {
		s.add(r.To, 30) // the newer release went away again
	}
	clear(s.byColour)
	for _, p := range s.proxies {
		p.connected, p.told = true, ""
	}
	_ = s.do(Resume{Service: "chat"})
	if !s.world.run(20*time.Minute, s.steady) {
		s.t.Fatalf("the rollout does not end although everything is well: %s", s.reason.Text)
	}
}

func (in *instance) well() bool { return !in.dead && !in.gone }

func (s *story) byColourAll(c discovery.Colour) []*instance {
	var out []*instance
	for _, in := range s.instances {
		if in.Colour == c {
			out = append(out, in)
		}
	}
	return out
}

func (s *story) check() {
	s.t.Helper()
	// 1. At most the cap, and one at an edge. An order takes a few ms to arrive,
	// not always the same. (3., never onto the dead, and 4., never past the room,
	// are held at each eviction; 6. is that nothing else evicts.)
	const every = 3*time.Second - 5*time.Millisecond
	from := 0
	for i, e := range s.evictions {
		for e.at.Sub(s.evictions[from].at) >= every {
			from++
		}
		most := 0
		for j, c := range s.caps {
			over := j+1 < len(s.caps) && s.caps[j+1].at.Before(s.evictions[from].at.Add(-every))
			if !over && c.at.Before(e.at) {
				most = max(most, c.close)
			}
		}
		if n := i - from + 1; n > most+1 {
			s.t.Fatalf("%d closes in the 3 s before %v, the cap is %d", n, e.at.Sub(epoch), most)
		}
	}
	// 2. Once: without an abort nobody is closed on the side that takes over.
	for _, e := range s.evictions {
		if e.from == discovery.Green && !s.abort && !s.newer {
			s.t.Fatalf("green closed a connection at %v although nothing was aborted", e.at.Sub(epoch))
		}
	}
	if !s.begun && len(s.evictions) > 0 {
		s.t.Fatalf("%d closes without a rollout", len(s.evictions))
	}
	// 5. Back is as gentle as forth: it ends where it should.
	want := discovery.Blue
	if s.begun && s.abort == s.newer {
		want = discovery.Green
	}
	if s.state.Live != want {
		s.t.Fatalf("live is %s, want %s", s.state.Live, want)
	}
	if s.policy.Window > 0 && s.lost == 0 && s.far > s.policy.Window {
		s.t.Fatalf("%d clients were on their way at once, the window is %d", s.far, s.policy.Window)
	}
	for _, in := range s.byColourAll(want.Other()) {
		if s.begun && in.well() && in.status.Active > 0 {
			s.t.Fatalf("%s still holds %d although the rollout is over", in.ID, in.status.Active)
		}
	}
}
