//go:build go1.26

package drain

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// throng is a gate with connections through two nodes, and from a machine that shows
// none; out counts who was let go, by where it came from.
type throng struct {
	*Gate
	out map[string]int
}

func newThrong(t *testing.T, each int) *throng {
	th := &throng{New(Options{}), map[string]int{}}
	for _, from := range []string{"edge-1", "edge-2", "10.0.0.9"} {
		for range each {
			if err := th.enter(from); err != nil {
				t.Fatal(err)
			}
		}
	}
	return th
}

// enter has somebody come, from 10.0.0.7 through a node, or from that address.
func (th *throng) enter(from string) error {
	h := Hooks{Remote: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7)}, Node: from}
	if ip := net.ParseIP(from); ip != nil {
		h = Hooks{Remote: &net.TCPAddr{IP: ip}}
	}
	var c *Conn
	h.Close = func() {
		th.Gate.mu.Lock()
		th.out[from]++
		th.Gate.mu.Unlock()
		c.Done()
	}
	c, err := th.AdmitHooks(h)
	return err
}

// mustTake gives the order.
func (th *throng) mustTake(t *testing.T, o contract.Order) {
	t.Helper()
	o.Rollout = "r"
	if err := o.Check(); err != nil {
		t.Fatal(err)
	}
	if _, err := th.order(o); err != nil {
		t.Fatal(err)
	}
}

// mustSay compares a level of the status with "state active of ceiling", and who went
// with "node n, …".
func (th *throng) mustSay(t *testing.T, level, want, out string) {
	t.Helper()
	synctest.Wait()
	s := th.Status()
	l := s.LevelOf(level)
	got := fmt.Sprintf("%s %d of ", l.State, l.Active)
	if got += "all"; l.Ceiling != nil {
		got = fmt.Sprintf("%s %d of %d", l.State, l.Active, *l.Ceiling)
	}
	th.Gate.mu.Lock()
	var went []string
	for from, n := range th.out {
		went = append(went, fmt.Sprintf("%s %d", from, n))
	}
	th.Gate.mu.Unlock()
	slices.Sort(went)
	if left := strings.Join(went, ", "); got != want || left != out {
		t.Errorf("%s is %q, and there left %q; want %q and %q", level, got, left, want, out)
	}
	if err := s.Check(); err != nil {
		t.Error(err)
	}
}

// A level bounds only whom it covers, and they are refused by it; the others come and
// stay as before.
func TestALevelCoversOnlyItsNodes(t *testing.T) {
	for _, pick := range []contract.Pick{contract.Random, contract.Oldest, contract.Idlest} {
		synctest.Test(t, func(t *testing.T) {
			th := newThrong(t, 10)
			th.mustTake(t, contract.Order{Level: "edge", Epoch: 1, Step: 1, Ceiling: new(4), OverMS: 6000, From: []string{"edge-1"}, Pick: pick})
			pass(3500 * time.Millisecond)
			th.mustSay(t, "edge", "draining 6 of 4", "edge-1 4")
			for from, want := range map[string]error{"edge-1": ErrDraining, "edge-2": nil, "10.0.0.9": nil, "10.0.0.7": nil} {
				if err := th.enter(from); err != want {
					t.Errorf("%s comes: %v, want %v", from, err, want)
				}
			}
			pass(time.Hour)
			th.mustSay(t, "edge", "draining 4 of 4", "edge-1 6")
			if s := th.Status(); s.State != contract.Serving || s.Epoch != 0 || s.Active != 27 {
				t.Errorf("status %+v, want it serving", s)
			}
			// By address only those that show no node are known.
			th.mustTake(t, contract.Order{Level: "edge", Epoch: 1, Step: 2, Ceiling: new(0), From: []string{"10.0.0.7", "10.0.0.9"}, Pick: pick})
			pass(time.Hour)
			th.mustSay(t, "edge", "drained 0 of 0", "10.0.0.7 1, 10.0.0.9 11, edge-1 6")
			if _, err := th.release(contract.Release{Level: "edge", Epoch: 1}); err != nil {
				t.Fatal(err)
			}
			th.mustSay(t, "edge", "serving 15 of all", "10.0.0.7 1, 10.0.0.9 11, edge-1 6")
			if err := th.enter("10.0.0.9"); err != nil {
				t.Error(err)
			}
		})
	}
}

// Each level has its own last word, pace and ceiling.
func TestLevelsStandBesideEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrong(t, 10)
		th.mustTake(t, contract.Order{Epoch: 9, Step: 3, Ceiling: new(27), OverMS: 3000})
		th.mustTake(t, contract.Order{Level: "edge", Epoch: 2, Step: 1, Ceiling: new(0), OverMS: 10_000, From: []string{"edge-2"}})
		if _, err := th.order(contract.Order{Level: "edge", Epoch: 1, Step: 9}); err == nil {
			t.Error("an order that is older than the level's was taken")
		}
		pass(time.Hour)
		s := th.Status()
		if s.Active > 20 || s.Active < 17 || s.State != contract.Draining || *s.Ceiling != 27 || s.Epoch != 9 || s.Step != 3 {
			t.Errorf("status %+v, want the rollout's order and 17 to 20 active", s)
		}
		if l := s.LevelOf("edge"); l.State != contract.Drained || l.Epoch != 2 || l.Step != 1 || !slices.Equal(l.From, []string{"edge-2"}) {
			t.Errorf("level %+v", l)
		}
		if _, err := th.release(contract.Release{Epoch: 9}); err != nil {
			t.Fatal(err)
		}
		if s := th.Status(); s.State != contract.Serving {
			t.Errorf("the rollout's level is released, but it is %s", s.State)
		}
		if err := th.enter("edge-2"); err != ErrDraining {
			t.Errorf("edge-2 comes: %v, want it refused by the other level", err)
		}
		if _, err := th.order(contract.Order{Epoch: 9, Step: 4}); err == nil {
			t.Error("the last word of an epoch was forgotten")
		}
	})
}

// A level that covers everybody refuses everybody, whatever its name.
func TestALevelOfEverybodyDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrong(t, 1)
		th.mustTake(t, contract.Order{Level: "stop", Epoch: 1, Ceiling: new(0)})
		pass(time.Hour)
		if s := th.Status(); s.State != contract.Drained || s.Ceiling != nil || th.enter("edge-1") != ErrDraining {
			t.Errorf("status %+v, want it drained", s)
		}
	})
}

func TestLevelsAreBounded(t *testing.T) {
	g := New(Options{})
	take := func(i int) error {
		_, err := g.order(contract.Order{Rollout: "r", Level: fmt.Sprint("level-", i), Epoch: 1, From: []string{"x"}})
		return err
	}
	for i := range contract.MaxLevels - 1 {
		if err := take(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := take(contract.MaxLevels); !errors.As(err, new(*stale)) {
		t.Errorf("one level too many: %v", err)
	}
	for _, i := range []int{8, 5} {
		_, _ = g.release(contract.Release{Level: fmt.Sprint("level-", i), Epoch: 1})
	}
	if err := take(contract.MaxLevels); err != nil {
		t.Errorf("after a release: %v", err)
	}
	s := g.Status()
	if _, ok := s.Levels["level-8"]; ok || len(s.Levels) != contract.MaxLevels-1 || s.LevelOf("level-5").State != contract.Serving {
		t.Errorf("%d levels, want the one forgotten that was released first", len(s.Levels))
	}
}

// Nodes on machines are told apart as long as they hold something; whoever invents names
// fills the table, and nothing else.
func TestInventedNodes(t *testing.T) {
	g := New(Options{})
	last := func(node string) *Conn {
		c, err := g.AdmitHooks(Hooks{Close: func() {}, Node: node})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for i := range 3 * maxNodes {
		last(fmt.Sprint("invented-", i)).Done()
	}
	var held []*Conn
	for i := range maxNodes {
		held = append(held, last(fmt.Sprint("held-", i)))
	}
	if c := last("one too many"); g.origins.of(c).node != "" {
		t.Errorf("a node more is known as %v", g.origins.of(c))
	}
	held[7].Done()
	if c := last("edge-1"); g.origins.of(c).node != "edge-1" || len(g.origins.index) != maxNodes {
		t.Errorf("after one has left, a node is known as %v, of %d", g.origins.of(c), len(g.origins.index))
	}
}

func TestNodeOfARequest(t *testing.T) {
	for want, said := range map[string][]string{
		"edge-1": {"edge-1"}, "edge-2": {"edge-2", "edge-2"},
	} {
		if got := nodeOf(http.Header{contract.NodeHeader: said}); got != want {
			t.Errorf("%q: %q, want %q", said, got, want)
		}
	}
	for _, said := range [][]string{nil, {"edge-1", "edge-2"}, {strings.Repeat("x", contract.MaxName+1)}} {
		if got := nodeOf(http.Header{contract.NodeHeader: said}); got != "" {
			t.Errorf("%q: %q, want it not known", said, got)
		}
	}
}

// before is an instance of the release before, in another language: it reads only the
// words that it knows and leaves out the others.
type before struct {
	told   []string
	strict bool // it is ours, and refuses words that it does not know
}

func (b *before) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if r.Method != http.MethodGet {
		b.told = append(b.told, r.Method+" "+string(body))
	}
	for _, word := range []string{"level", "from", "order"} {
		if b.strict && strings.Contains(string(body), `"`+word+`"`) {
			http.Error(w, fmt.Sprintf(`{"error":"json: unknown field %q"}`, word), http.StatusBadRequest)
			return
		}
	}
	fmt.Fprint(w, `{"state":"serving","active":1,"accepted":1,"evicted":0,"returned":null,"limit":0,"ceiling":null,"epoch":1,"step":0}`)
}

// A word that changes what an order means is never left out: an instance that is older
// than it is not told at all.
func TestClientTellsOnlyWhoCan(t *testing.T) {
	for _, strict := range []bool{true, false} {
		old := &before{strict: strict}
		srv := httptest.NewServer(old)
		c := newClient(t, "")
		for _, o := range []contract.Order{
			{Rollout: "r", Epoch: 1, Ceiling: new(0), From: []string{"edge-1"}},
			{Rollout: "r", Epoch: 1, Ceiling: new(0), From: []string{"edge-1"}, Pick: contract.Oldest},
			{Rollout: "r", Epoch: 1, Ceiling: new(0), Level: "edge"},
			{Rollout: "r", Epoch: 1, Ceiling: new(0), Level: "edge", From: []string{"edge-1"}, Pick: contract.Oldest},
		} {
			_, err := c.Order(t.Context(), srv.URL, o)
			u, ok := errors.AsType[*contract.Unable](err)
			if !ok || !slices.Equal(u.Lacks, o.Needs()) || old.told != nil {
				t.Errorf("%+v: %v, and it was told %q; want it told nothing", o, err, old.told)
			}
		}
		if _, err := c.Release(t.Context(), srv.URL, contract.Release{Rollout: "r", Epoch: 1, Level: "edge"}); !errors.As(err, new(*contract.Unable)) || old.told != nil {
			t.Errorf("a level's release: %v, and it was told %q; want it told nothing", err, old.told)
		}
		if _, err := c.Order(t.Context(), srv.URL, contract.Order{Rollout: "r", Level: contract.Rollout, Epoch: 1, Ceiling: new(0), Pick: contract.Oldest}); err != nil {
			t.Errorf("an order without such words: %v", err)
		}
		srv.Close()
	}
}

func TestClientAndLevels(t *testing.T) {
	g := New(Options{})
	srv := httptest.NewServer(g.Endpoint())
	defer srv.Close()
	c := newClient(t, "")
	o := contract.Order{Rollout: "r", Level: "edge", Epoch: 3, Step: 2, From: []string{"edge-1", "edge-1"}}
	s, err := c.Order(t.Context(), srv.URL, o)
	if l := s.LevelOf("edge"); err != nil || l.Epoch != 3 || l.Step != 2 || l.State != contract.Drained || !slices.Equal(l.From, o.From[:1]) {
		t.Errorf("%+v, %v", s, err)
	}
	if o.Epoch = 2; true {
		if _, err := c.Order(t.Context(), srv.URL, o); err == nil {
			t.Error("an older order was taken")
		}
	}
	if s, err = c.Release(t.Context(), srv.URL, contract.Release{Rollout: "r", Level: "edge", Epoch: 3}); err != nil || s.LevelOf("edge").State != contract.Serving {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestLevelsThatAreRefused(t *testing.T) {
	for _, body := range []string{
		`{"rollout":"r","epoch":1,"from":[]}`,
		`{"rollout":"r","epoch":1,"from":[""]}`,
		`{"rollout":"r","epoch":1,"from":"edge-1"}`,
		`{"rollout":"r","epoch":1,"from":["` + strings.Repeat("x", contract.MaxName+1) + `"]}`,
		`{"rollout":"r","epoch":1,"from":["x"` + strings.Repeat(`,"x"`, contract.MaxFrom) + `]}`,
		`{"rollout":"r","epoch":1,"level":"` + strings.Repeat("x", contract.MaxName+1) + `"}`,
		`{"rollout":"r","epoch":1,"level":7}`,
	} {
		g := New(Options{Token: "t"})
		if w := ask(g, "PUT", "/drain", "t", "", body); w.Code != 400 || g.Status().Levels != nil {
			t.Errorf("%.60s: %d %s", body, w.Code, w.Body)
		}
	}
}

// Who never learns through which proxy a connection came does not say that it can, and
// takes no order that it would carry out on nobody.
func TestANodelessGateTakesNoFrom(t *testing.T) {
	g := New(Options{Token: "t", Nodeless: true})
	if w := ask(g, "PUT", "/drain", "t", "", `{"rollout":"r","epoch":1,"from":["edge-1"]}`); w.Code != 400 || g.Status().Epoch != 0 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if can := g.Status().Can; !slices.Equal(can, []contract.Ability{contract.CanLevels}) {
		t.Errorf("it can %v", can)
	}
}
