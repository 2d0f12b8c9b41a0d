package main

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/rollout/units"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func at(seconds float64) time.Time {
	return epoch.Add(time.Duration(math.Round(seconds * float64(time.Second))))
}

func joined(client int, s float64, colour string) clients.Record {
	return clients.Record{At: at(s), Client: client, Kind: clients.Joined, Hello: clients.Hello{Instance: "chat-" + colour, Colour: colour}}
}

func left(client int, s float64, colour string, code int) clients.Record {
	r := joined(client, s, colour)
	r.Kind = clients.Left
	r.Code = -1
	if code != 0 {
		r.Code = 1012
	}
	return r
}

// moves is a run in which client i leaves blue at leave(i) and is back on green
// after back seconds.
func moves(name string, n int, code int, leave func(int) float64, back float64) recording {
	r := recording{name: name, clients: n, funnel: units.Funnel{Close: 10, Every: units.Duration(3 * time.Second)}, began: at(-0.7)}
	for i := range n {
		r.records = append(r.records, joined(i, -5, "blue"), left(i, leave(i), "blue", code), joined(i, leave(i)+back, "green"))
	}
	r.records = sorted(r.records)
	return r
}

// spread is the funnel's pace: 10 every 3 s.
func spread(i int) float64 { return float64(i) * 0.3 }

func TestFiguresOfAFunnel(t *testing.T) {
	r := moves(funnel, 100, 1012, spread, 0.25)
	f := r.measure()
	want := figures{
		Name: funnel, Clients: 100, SecondsToMove: 29.95, SecondsFromCommand: 30.65,
		PeakReconnects: 4, PeakEvictions: 10, DisconnectMax: 1, DisconnectAvg: 1,
		AwayP50: 250, AwayP99: 250, AwayMax: 250,
	}
	if f != want {
		t.Errorf("got  %+v\nwant %+v", f, want)
	}
	if err := f.broken(r.funnel); err != nil {
		t.Error(err)
	}
}

func TestFiguresOfAStorm(t *testing.T) {
	r := moves(storm, 100, 0, func(int) float64 { return 0 }, 0.5)
	f := r.measure()
	if f.Unplanned != 100 || f.PeakReconnects != 100 || f.PeakEvictions != 100 || f.SecondsToMove != 0.5 {
		t.Errorf("%+v", f)
	}
	if err := f.broken(r.funnel); err != nil {
		t.Error("a storm promises nothing but that all are back:", err)
	}
}

// comesOver is a run in which client i is asked at ask(i), is on green after a while, and ends
// the old connection then.
func comesOver(n int, ask func(int) float64, after float64) recording {
	r := recording{name: asked, clients: n, funnel: units.Funnel{Close: 10, Every: units.Duration(3 * time.Second)}, began: at(-0.7), ended: at(60)}
	r.messages = clients.Messages{Heard: 1000, Twice: 7}
	for i := range n {
		told, ended := joined(i, ask(i), "blue"), joined(i, ask(i)+after+0.01, "blue")
		told.Kind, ended.Kind = clients.Asked, clients.Ended
		r.records = append(r.records, joined(i, -5, "blue"), told, joined(i, ask(i)+after, "green"), ended)
	}
	r.records = sorted(r.records)
	return r
}

func TestFiguresOfAsked(t *testing.T) {
	r := comesOver(100, spread, 0.25)
	f := r.measure()
	want := figures{
		Name: asked, Clients: 100, SecondsToMove: 29.95, SecondsFromCommand: 30.65, PeakReconnects: 4, PeakEvictions: 10,
		Asked: 100, AskedMax: 1, Heard: 1000, Twice: 7,
	}
	if f != want {
		t.Errorf("got  %+v\nwant %+v", f, want)
	}
	if err := f.broken(r.funnel); err != nil {
		t.Error(err)
	}
}

func TestTimeWithoutAConnection(t *testing.T) {
	r := recording{clients: 4, funnel: units.Funnel{Close: 10, Every: units.Duration(3 * time.Second)}, ended: at(10), records: sorted([]clients.Record{
		joined(0, 0, "blue"), left(0, 1, "blue", 0), joined(0, 1.0001, "green"), left(0, 3, "green", 0), joined(0, 5, "green"), // twice
		joined(1, 0, "blue"),                        // never
		joined(2, 0, "blue"), left(2, 4, "blue", 0), // for good
		joined(3, 2, "blue"), // came later: that is no loss
	})}
	if got, want := r.away(), []time.Duration{0, 0, 2*time.Second + 100*time.Microsecond, 6 * time.Second}; !slices.Equal(got, want) {
		t.Errorf("away %v, want %v", got, want)
	}
	if f := r.measure(); f.AwayP50 != 0 || f.AwayP99 != 6000 || f.AwayMax != 6000 {
		t.Errorf("half %d, 99 %% %d, longest %d", f.AwayP50, f.AwayP99, f.AwayMax)
	}
	if got := among([]time.Duration{time.Microsecond}, 1); got != 1 {
		t.Errorf("a microsecond is %d ms, and must not be none", got)
	}
}

func TestPeakIsExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for range 200 {
		var moments []time.Time
		for s := 0.0; len(moments) < 60; s += rng.Float64() {
			moments = append(moments, at(s))
		}
		want := 0
		for i := range moments {
			n := 0
			for _, u := range moments[i:] {
				if u.Sub(moments[i]) < 3*time.Second {
					n++
				}
			}
			want = max(want, n)
		}
		if got := peak(moments, 3*time.Second); got != want {
			t.Fatalf("peak %d, want %d", got, want)
		}
	}
	if got := peak([]time.Time{at(0), at(1)}, time.Second); got != 1 {
		t.Errorf("moments exactly a window apart: peak %d, want 1", got)
	}
}

func TestBrokenPromises(t *testing.T) {
	for name, change := range map[string]struct {
		want string
		make func(recording) recording
	}{
		"cap": {"the cap is 10", func(recording) recording {
			return moves(funnel, 100, 1012, func(i int) float64 { return float64(i) * 0.25 }, 0.2)
		}},
		"unplanned": {"were not the funnel's", func(recording) recording { return moves(funnel, 100, 0, spread, 0.2) }},
		"twice": {"not exactly once each", func(r recording) recording {
			r.records = append(r.records, left(3, 60, "green", 1012), joined(3, 61, "green"))
			return r
		}},
		"never": {"not exactly once each", func(r recording) recording { // one stayed, one went twice
			r.clients++
			r.records = append(r.records, joined(100, 50, "green"))
			return r
		}},
		"lost": {"1 of 100 clients are not back", func(r recording) recording {
			r.records = r.records[:len(r.records)-1]
			return r
		}},
		"on blue": {"1 of 100 clients are not back", func(r recording) recording {
			r.records = append(r.records, left(3, 60, "green", 1012), joined(3, 61, "blue"))
			return r
		}},
		"asked too fast": {"the cap is 10", func(recording) recording {
			return comesOver(100, func(i int) float64 { return float64(i) * 0.25 }, 0.2)
		}},
		"asked twice": {"asked 101 times, up to 2 times one", func(recording) recording {
			r, again := comesOver(100, spread, 0.25), joined(5, 50, "green")
			again.Kind = clients.Asked
			r.records = append(r.records, again)
			return r
		}},
		"asked not": {"asked 99 times", func(recording) recording {
			r := comesOver(100, spread, 0.25)
			r.records = slices.DeleteFunc(r.records, func(rec clients.Record) bool { return rec.Client == 5 && rec.Kind == clients.Asked })
			return r
		}},
		"asked, overstayed": {"were disconnected, up to 1 times", func(recording) recording {
			r := comesOver(100, spread, 0.25)
			for i, rec := range r.records {
				if rec.Client == 5 && rec.Kind == clients.Ended {
					r.records[i] = left(5, 1.76, "blue", 1012)
				}
			}
			return r
		}},
		"asked, away": {"without a connection for 1 ms", func(recording) recording {
			r := comesOver(100, spread, 0.25)
			for i, rec := range r.records {
				if rec.Client == 5 && rec.Kind == clients.Ended {
					r.records[i].At = at(1.7499)
				}
			}
			r.records = sorted(r.records)
			return r
		}},
		"asked, lost": {"1 messages were lost", func(recording) recording {
			r := comesOver(100, spread, 0.25)
			r.messages.Unanswered = 1
			return r
		}},
	} {
		r := change.make(moves(funnel, 100, 1012, spread, 0.25))
		err := r.measure().broken(r.funnel)
		if err == nil || !strings.Contains(err.Error(), change.want) {
			t.Errorf("%s: %v, want one that says %q", name, err, change.want)
		}
	}
}

func TestAllowed(t *testing.T) {
	every := units.Duration(3 * time.Second)
	for _, c := range []struct{ limit, echo, want int }{{10, 0, 11}, {10, 299, 11}, {1000, 0, 1001}, {1000, 30, 1011}} {
		limit := units.Funnel{Close: c.limit, Every: every}
		r := recording{funnel: limit, clients: 1, slowestEcho: time.Duration(c.echo) * time.Millisecond}
		if got := r.measure().allowed(limit); got != c.want {
			t.Errorf("cap %d, slowest echo %d ms: %d allowed, want %d", c.limit, c.echo, got, c.want)
		}
	}
}

func TestSeries(t *testing.T) {
	r := moves(funnel, 10, 1012, spread, 0.25)
	last := func(line []point) float64 { return line[len(line)-1].y }
	blue, green := r.connections(byColour[0].of, -3, 10, 100*time.Millisecond), r.connections(byColour[1].of, -3, 10, 100*time.Millisecond)
	if blue[0].y != 10 || last(blue) != 0 || green[0].y != 0 || last(green) != 10 {
		t.Errorf("blue %v\ngreen %v", blue, green)
	}
	var got strings.Builder
	for _, bar := range r.reconnects(-3, 5) {
		fmt.Fprintf(&got, "%g:%g ", bar.x, bar.y)
	}
	if want := "-3:0 -2:0 -1:0 0:3 1:3 2:4 3:0 4:0 "; got.String() != want {
		t.Errorf("reconnects %s, want %s", got.String(), want)
	}
}

// sorted puts records into the order of time.
func sorted(records []clients.Record) []clients.Record {
	slices.SortStableFunc(records, func(a, b clients.Record) int { return cmp.Compare(a.At.UnixNano(), b.At.UnixNano()) })
	return records
}
