//go:build go1.26

package drain

import (
	"bytes"
	"cmp"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// fold is a gate whose connections are admitted a second apart; gone are those
// that were evicted, by their numbers, in order.
type fold struct {
	*Gate
	conns []*Conn

	mu   sync.Mutex
	gone []int
}

func newFold(t *testing.T, n int) *fold {
	f := &fold{Gate: New(Options{})}
	for range n {
		f.add(t)
	}
	return f
}

func (f *fold) add(t *testing.T) *Conn {
	t.Helper()
	n := len(f.conns)
	c, err := f.Admit(func() {
		f.mu.Lock()
		f.gone = append(f.gone, n)
		f.mu.Unlock()
		f.conns[n].Done()
	})
	if err != nil {
		t.Fatal(err)
	}
	f.conns = append(f.conns, c)
	time.Sleep(time.Second)
	return c
}

// letGo has n connections go, one a second.
func (f *fold) letGo(t *testing.T, epoch uint64, p contract.Pick, n int) {
	t.Helper()
	s := f.Status()
	_, err := f.order(contract.Order{Rollout: "r", Epoch: epoch, Step: s.Step + 1, Ceiling: new(max(0, s.Active-n)), OverMS: int64(n) * 1000, Pick: p})
	if err != nil {
		t.Fatal(err)
	}
}

// pass lets d pass, and has everything that is due done.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// wentSoFar waits until what is due is done.
func (f *fold) wentSoFar() []int {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.gone)
}

func (f *fold) mustBeGone(t *testing.T, want ...int) {
	t.Helper()
	if went := f.wentSoFar(); !slices.Equal(went, want) {
		t.Errorf("connections went in the order %v, want %v", went, want)
	}
}

func TestOldestGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFold(t, 10)
		f.conns[0].Done() // the last takes its place
		f.conns[4].Done()
		f.letGo(t, 1, contract.Oldest, 3)
		pass(2500 * time.Millisecond)
		f.mustBeGone(t, 1, 2, 3)
		f.conns[5].Done()
		f.conns[3].Active()
		f.letGo(t, 1, contract.Oldest, 2)
		pass(time.Minute)
		f.mustBeGone(t, 1, 2, 3, 6, 7)

		// Back and forth again: those that came in between are the youngest.
		if _, err := f.release(contract.Release{Epoch: 1}); err != nil {
			t.Fatal(err)
		}
		f.add(t)
		f.add(t)
		f.conns[8].Done()
		f.letGo(t, 2, contract.Oldest, 3)
		pass(time.Minute)
		f.mustBeGone(t, 1, 2, 3, 6, 7, 9, 10, 11)
	})
}

// Connections 0 to 2 say when they are active, the others never do.
func TestIdlestGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFold(t, 6)
		f.conns[1].Active()
		time.Sleep(time.Second)
		f.conns[0].Active()
		f.letGo(t, 1, contract.Idlest, 6)
		pass(1500 * time.Millisecond)
		f.mustBeGone(t, 2, 3)
		f.conns[4].Active() // during the step
		pass(time.Minute)
		f.mustBeGone(t, 2, 3, 5, 1, 0, 4)
	})
}

// Whatever is active, ends by itself or is ordered meanwhile, the one that goes
// is the first of all by the rule.
func TestPickAgainstTheRule(t *testing.T) {
	for _, pick := range []contract.Pick{contract.Oldest, contract.Idlest} {
		synctest.Test(t, func(t *testing.T) {
			f := newFold(t, 300)
			rng := rand.New(rand.NewPCG(1, 2))
			for range 300 {
				f.conns[rng.IntN(len(f.conns))].Active()
				time.Sleep(time.Second)
			}
			f.letGo(t, 1, pick, 250)
			for before := f.wentSoFar(); len(before) < 200; before = f.wentSoFar() {
				for range rng.IntN(40) {
					f.conns[rng.IntN(len(f.conns))].Active()
				}
				if rng.IntN(4) == 0 {
					f.conns[rng.IntN(len(f.conns))].Done()
				}
				f.Gate.mu.Lock()
				queue := &f.levels[0].queue
				for i := 1; i < len(queue.list); i++ {
					if queue.before(i, (i-1)/2) {
						t.Fatalf("%s: the queue is no heap at %d", pick, i)
					}
				}
				first := slices.MinFunc(f.held, func(a, b *Conn) int {
					if pick == contract.Oldest {
						return cmp.Compare(a.nth, b.nth)
					}
					return cmp.Or(cmp.Compare(a.active.Load(), b.active.Load()), cmp.Compare(a.nth, b.nth))
				})
				f.Gate.mu.Unlock()
				if rng.IntN(10) == 0 {
					f.letGo(t, 1, pick, 250) // closes one at once
				} else {
					time.Sleep(time.Second)
				}
				if went := f.wentSoFar()[len(before):]; len(went) > 0 && f.conns[went[0]] != first {
					t.Fatalf("%s: connection %d went, want %d", pick, went[0], slices.Index(f.conns, first))
				}
			}
		})
	}
}

// A pick looks at a bounded number, however many were active.
func TestManyActive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{})
		for range 3 * maxLooks {
			_, _ = g.Admit(func() {})
		}
		q := queue{pick: contract.Idlest}
		q.make(g, from{})
		time.Sleep(time.Second)
		looked := func() (n int) {
			for _, c := range q.list {
				if c.seen > 0 {
					n++
				}
			}
			return n
		}
		for _, c := range g.held {
			c.Active()
		}
		for k := 1; k <= 2; k++ {
			if q.next(); looked() != k*maxLooks {
				t.Errorf("%d looked at after %d picks, want %d", looked(), k, k*maxLooks)
			}
		}
	})
}

func TestShutdownAfterOldestIsRandom(t *testing.T) {
	g := New(Options{})
	_, _ = g.order(contract.Order{Rollout: "r", Epoch: 1, Pick: contract.Oldest})
	_, _ = g.release(contract.Release{Epoch: 1})
	if p := g.levels[0].queue.pick; p == contract.Oldest {
		t.Errorf("released, the pick is %q, want random", p)
	}
}

func TestUnknownPickIsRefused(t *testing.T) {
	for body, code := range map[string]int{
		`{"rollout":"r","epoch":1,"order":"youngest"}`: 400,
		`{"rollout":"r","epoch":1,"order":7}`:          400,
		`{"rollout":"r","epoch":1,"order":"idlest"}`:   200,
		`{"rollout":"r","epoch":1,"order":"oldest"}`:   200,
		`{"rollout":"r","epoch":1,"order":"random"}`:   200,
		`{"rollout":"r","epoch":1,"order":""}`:         200,
	} {
		if w := ask(New(Options{Token: "t"}), "PUT", "/drain", "t", "", body); w.Code != code {
			t.Errorf("%s: %d %s, want %d", body, w.Code, w.Body, code)
		}
	}
}

// An instance that is older than the word takes the order without it.
func TestClientAndAnInstanceWithoutPicks(t *testing.T) {
	old, asked := New(Options{}), 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		b, _ := io.ReadAll(r.Body)
		if bytes.Contains(b, []byte(`"order"`)) {
			http.Error(w, `{"error":"json: unknown field \"order\""}`, http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(b))
		old.Endpoint().ServeHTTP(w, r)
	}))
	defer srv.Close()
	c := newClient(t, "")
	s, err := c.Order(t.Context(), srv.URL, contract.Order{Rollout: "r", Epoch: 4, Step: 2, Pick: contract.Oldest})
	if err != nil || s.Epoch != 4 || s.Step != 2 {
		t.Errorf("order: %+v, %v; want it taken", s, err)
	}
	asked = 0
	if _, err := c.Order(t.Context(), srv.URL, contract.Order{Rollout: "r", Epoch: 4, Step: 3, Pick: contract.Random}); err != nil || asked != 1 {
		t.Errorf("random: %v after %d requests, want one without the word", err, asked)
	}
	if _, err := c.Order(t.Context(), srv.URL, contract.Order{Rollout: "", Epoch: 4, Pick: contract.Oldest}); err == nil {
		t.Error("a broken order was taken")
	}
}

// BenchmarkEvict is one close of 100,000, half of which are active meanwhile.
func BenchmarkEvict(b *testing.B) {
	for _, pick := range []contract.Pick{contract.Random, contract.Oldest, contract.Idlest} {
		b.Run(string(pick), func(b *testing.B) {
			g := New(Options{})
			for range 100_000 {
				_, _ = g.Admit(func() {})
			}
			for i, c := range g.held {
				c.active.Store(uint32(i % 1000))
			}
			q := queue{pick: pick}
			q.make(g, from{})
			second := uint32(1000)
			for i := 0; b.Loop(); i++ {
				if i%1000 == 0 { // a second passes
					second++
					for _, c := range g.held[:len(g.held)/2] {
						c.active.Store(second)
					}
				}
				c := q.next()
				g.remove(c)
				c.origin = g.origins.add(origin{})
				g.hold(c)
				q.add(c)
			}
		})
	}
}

func BenchmarkActive(b *testing.B) {
	g := New(Options{})
	c, _ := g.Admit(func() {})
	for b.Loop() {
		c.Active()
	}
}
