package process_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/xds/process"
)

// envoy is one process as the book sees it: streams of several kinds on one connection,
// which it begins again, each after a while of its own, whenever they end.
type envoy struct {
	book    *process.Book
	rng     *rand.Rand
	node    string
	addr    string
	streams map[string]*process.Stream
	next    map[string]time.Time // when a stream that is not open is begun
	mute    map[string]bool      // kinds on which nothing is said unless asked
	dead    []*process.Stream    // of a connection that died, which nobody has noticed yet
	noticed time.Time
	late    bool // when it was noticed
}

var kinds = []string{"xds", "loads", "counters"}

func (e *envoy) later() time.Time {
	return time.Now().Add(time.Duration(e.rng.IntN(3000)) * time.Millisecond)
}

// live has the process do what it does at this moment.
func (e *envoy) live() {
	if !time.Now().Before(e.noticed) {
		for _, s := range e.dead {
			s.Close()
		}
		e.dead = nil
	}
	for _, kind := range kinds {
		s := e.streams[kind]
		switch {
		case s == nil && !time.Now().Before(e.next[kind]):
			e.streams[kind] = e.book.Open(e.node, e.addr, kind)
		case s == nil:
		default:
			select {
			case <-s.Over():
				e.drop(kind)
			default:
				if !e.mute[kind] {
					s.Heard()
				}
			}
		}
	}
}

func (e *envoy) drop(kind string) {
	e.streams[kind].Close()
	e.streams[kind], e.next[kind] = nil, e.later()
}

// cut ends its connection, which may be noticed late; it comes back from another port.
func (e *envoy) cut(addr string) {
	e.late = e.rng.IntN(2) == 0
	if e.late {
		e.noticed = time.Now().Add(time.Duration(e.rng.IntN(8000)) * time.Millisecond)
	}
	for _, kind := range kinds {
		if s := e.streams[kind]; s != nil {
			e.dead = append(e.dead, s)
			e.streams[kind], e.next[kind] = nil, e.later()
		}
	}
	e.addr = addr
}

// name is what the process is called, "" while its streams are not of one mind.
func (e *envoy) name() string {
	name := ""
	for _, kind := range kinds {
		switch s := e.streams[kind]; {
		case s == nil || s.Process.Contested() || name != "" && s.Process.Name() != name:
			return ""
		default:
			name = s.Process.Name()
		}
	}
	return name
}

// However the streams of processes with one node id begin, and begin again, within half a
// minute each process has a name of its own. The names are the first ones, unless several
// connections died and nobody noticed: then one may be left over, as of a proxy that is lost.
func TestEachProcessIsToldApart(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			var all []*envoy
			start := func(book *process.Book, n int) {
				all = nil
				for i := range n {
					e := &envoy{book: book, rng: rng, node: "edge-1", addr: fmt.Sprint("10.0.0.1:", 100+i), streams: map[string]*process.Stream{}, next: map[string]time.Time{}, mute: map[string]bool{"xds": true}}
					for _, kind := range kinds {
						e.next[kind] = e.later()
					}
					all = append(all, e)
				}
			}
			settle := func(what string) {
				for range 300 {
					time.Sleep(100 * time.Millisecond)
					synctest.Wait()
					for _, e := range all {
						e.live()
					}
				}
				var names []string
				for _, e := range all {
					names = append(names, e.name())
				}
				slices.Sort(names)
				first := slices.Equal(names, []string{"edge-1", "edge-1 (2)", "edge-1 (3)"}[:len(all)])
				if late := slices.ContainsFunc(all, func(e *envoy) bool { return e.late }); !first && !late || names[0] == "" || len(slices.Compact(names)) < len(all) {
					t.Fatalf("seed %d, %s: they are %q", seed, what, names)
				}
			}
			start(process.New(), 1+rng.IntN(3))
			settle("at first")
			for i, e := range all {
				if rng.IntN(2) == 0 {
					e.cut(fmt.Sprint("10.0.0.1:", 200+i))
				}
			}
			settle("after connections were cut")
		})
	}
}

// A connection that has died and is not noticed is no second process.
func TestADeadConnectionIsNoProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		book := process.New()
		var changes int
		book.Watch(func() { changes++ })
		old := book.Open("edge-1", "10.0.0.1:1", "xds")
		young := book.Open("edge-1", "10.0.0.1:2", "xds")
		old.Heard() // what lay in a buffer
		for range 8 {
			time.Sleep(time.Second)
			young.Heard()
			if !young.Process.Contested() || old.Process != young.Process {
				t.Fatal("nobody can know yet")
			}
		}
		old.Close()
		time.Sleep(time.Minute)
		if young.Process.Contested() || young.Process.Name() != "edge-1" || changes != 2 {
			t.Errorf("%q, contested %v, %d changes", young.Process.Name(), young.Process.Contested(), changes)
		}
		select {
		case <-young.Over():
			t.Error("the stream was ended")
		default:
		}
	})
}
