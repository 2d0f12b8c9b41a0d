package control

import (
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/state"
)

func TestDiffer(t *testing.T) {
	const id discovery.InstanceID = "b1"
	addr := netip.MustParseAddrPort("10.0.0.1:80")
	members := map[discovery.InstanceID]state.Member{id: {Identity: state.Identity{ID: id, Colour: discovery.Blue, Addr: addr, Drain: "http://10.0.0.1:81"}}}
	place := observed.Place{Colour: discovery.Blue, Addr: addr}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		name           string
		said, reported int
		change         func(*observed.Sighting, *observed.Load)
		want           bool
	}{
		{"far apart", 100, 60, nil, true},
		{"either way", 60, 100, nil, true},
		{"ten are not enough", 20, 10, nil, false},
		{"eleven are", 21, 10, nil, true},
		{"5 % are not enough", 1000, 950, nil, false},
		{"a little more is", 1000, 949, nil, true},
		{"the endpoint is silent", 100, 60, func(s *observed.Sighting, _ *observed.Load) { s.Err = "no answer" }, false},
		{"its answer is old", 100, 60, func(s *observed.Sighting, _ *observed.Load) { s.At = s.At.Add(-11 * time.Second) }, false},
		{"a proxy is silent", 100, 60, func(_ *observed.Sighting, l *observed.Load) { l.Silent = []string{"edge-1"} }, false},
		{"a report is old", 100, 60, func(_ *observed.Sighting, l *observed.Load) { l.At = l.At.Add(-11 * time.Second) }, false},
	} {
		var d Differ
		look := func(at time.Time, said, reported int) (rollout.Difference, bool) {
			s, l := observed.Sighting{Status: contract.Status{Active: said}, At: at}, observed.Load{Held: reported, At: at}
			if c.change != nil {
				c.change(&s, &l)
			}
			all := d.Compare(members, observed.Seen{Instances: map[discovery.InstanceID]observed.Sighting{id: s}, Loads: map[observed.Place]observed.Load{place: l}}, at)
			x, ok := all[id]
			return x, ok
		}
		for at := now; at.Before(now.Add(30 * time.Second)); at = at.Add(time.Second) {
			if _, ok := look(at, c.said, c.reported); ok {
				t.Fatalf("%s: told after %v", c.name, at.Sub(now))
			}
		}
		got, ok := look(now.Add(30*time.Second), c.said, c.reported)
		if ok != c.want || ok && got != (rollout.Difference{Said: c.said, Reported: c.reported, Since: now}) {
			t.Errorf("%s: %v %+v", c.name, ok, got)
		}
		// Once they agree it is over, and begins anew.
		if _, ok := look(now.Add(31*time.Second), 50, 50); ok {
			t.Errorf("%s: told while they agree", c.name)
		}
		if _, ok := look(now.Add(32*time.Second), c.said, c.reported); ok {
			t.Errorf("%s: told at once", c.name)
		}
	}
}

// An instance that is idle is heard seldom: a difference lasts once it is found again,
// and what was found holds in between.
func TestDifferOfIdleInstances(t *testing.T) {
	addr := netip.MustParseAddrPort("10.0.0.1:80")
	members := map[discovery.InstanceID]state.Member{"b1": {Identity: state.Identity{ID: "b1", Colour: discovery.Blue, Addr: addr, Drain: "http://10.0.0.1:81"}}}
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var d Differ
	for s := range 200 {
		at := began.Add(time.Duration(s) * time.Second)
		heard := began.Add(time.Duration(min(s, 150)/30*30) * time.Second) // never again after 150 s
		seen := observed.Seen{
			Instances: map[discovery.InstanceID]observed.Sighting{"b1": {Status: contract.Status{Active: 100}, At: heard}},
			Loads:     map[observed.Place]observed.Load{{Colour: discovery.Blue, Addr: addr}: {Held: 60, At: at}},
		}
		_, told := d.Compare(members, seen, at)["b1"]
		if want := s >= 30 && s <= 195; told != want {
			t.Fatalf("after %d s, the instance having said 100 at %v: told %v, want %v", s, heard.Sub(began), told, want)
		}
	}
}

func TestDifferNeedsBoth(t *testing.T) {
	var d Differ
	addr := netip.MustParseAddrPort("10.0.0.1:80")
	members := map[discovery.InstanceID]state.Member{"b1": {Identity: state.Identity{ID: "b1", Colour: discovery.Blue, Addr: addr}}}
	for s := range 60 {
		at := time.Unix(int64(s), 0)
		if got := d.Compare(members, observed.Seen{Loads: map[observed.Place]observed.Load{{Colour: discovery.Blue, Addr: addr}: {Held: 100, At: at}}}, at); len(got) > 0 {
			t.Fatalf("an instance without drain endpoint differs from nothing: %+v", got)
		}
	}
}
