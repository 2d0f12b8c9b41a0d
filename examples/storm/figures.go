package main

import (
	"fmt"
	"math"
	"time"

	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// recording is what the clients went through in one run.
type recording struct {
	name    string
	clients int
	funnel  units.Funnel
	// began is when the operator acted: the stop of the blue processes, or promote.
	began time.Time
	// slowestEcho is the longest that a message and its echo took meanwhile: the
	// error of the clock that the clients are.
	slowestEcho time.Duration
	// records are in the order of time.
	records []clients.Record
	// home says where a client belongs at the end; nil is on green.
	home func(clients.Hello) bool
}

// figures are what a run comes to, all measured at the clients.
type figures struct {
	Name    string `json:"name"`
	Clients int    `json:"clients"`
	// SecondsToMove is from the first disconnect to the last client's return.
	SecondsToMove float64 `json:"seconds_to_move"`
	// SecondsFromCommand is from the stop or promote to the last client's return.
	SecondsFromCommand float64 `json:"seconds_from_command"`
	// PeakReconnects is the most returns in any window of one second.
	PeakReconnects int `json:"peak_reconnects_per_s"`
	// PeakEvictions is the most disconnects in any window of length every.
	PeakEvictions int     `json:"peak_evictions_per_window"`
	DisconnectMax int     `json:"disconnects_per_client_max"`
	DisconnectAvg float64 `json:"disconnects_per_client_mean"`
	// Unplanned counts the disconnects that were not the funnel's (close code 1012).
	Unplanned int `json:"unplanned_disconnects"`
	// NeverBack counts the clients that are not where they belong at the end.
	NeverBack int `json:"never_back"`
	// SlowestEcho is how long a message and its echo took at most, in milliseconds.
	SlowestEcho int `json:"slowest_echo_ms"`
	// Refused counts the attempts to connect that did not succeed.
	Refused int `json:"refused_attempts"`
}

// fields explains the figures to whoever reads the JSON.
var fields = map[string]string{
	"seconds_to_move":            "from the first disconnect to the last client's return",
	"seconds_from_command":       "from the stop of the blue processes (storm) or rolloutctl promote to the last client's return",
	"peak_reconnects_per_s":      "most returns in any window of one second",
	"peak_evictions_per_window":  "most disconnects in any window of length every",
	"unplanned_disconnects":      "disconnects without the funnel's close code 1012",
	"never_back":                 "clients that are not connected to green at the end (in scenarios: to the release that is live then)",
	"planned_disconnects":        "disconnects with the funnel's close code 1012; peak_evictions_per_window counts only these in scenarios",
	"reasons":                    "codes of the reasons that rolloutctl watch showed, in order",
	"slowest_echo_ms":            "the longest that a message through Envoy and its echo took: disconnects may be seen late by as much",
	"refused_attempts":           "attempts to connect that did not succeed",
	"disconnects_per_client_max": "over all clients, those never disconnected included; likewise the mean",
}

// disconnects and returns are the moments at which clients left, and came back
// after that.
func (r recording) disconnects() (at []time.Time) {
	for _, rec := range r.records {
		if rec.Kind == clients.Left {
			at = append(at, rec.At)
		}
	}
	return at
}

func (r recording) returns() (at []time.Time) {
	was := map[int]bool{}
	for _, rec := range r.records {
		switch rec.Kind {
		case clients.Left:
			was[rec.Client] = true
		case clients.Joined:
			if was[rec.Client] {
				at = append(at, rec.At)
			}
		}
	}
	return at
}

func (r recording) measure() figures {
	f := figures{Name: r.name, Clients: r.clients, SlowestEcho: int(r.slowestEcho.Milliseconds())}
	left, back := r.disconnects(), r.returns()
	if len(left) > 0 && len(back) > 0 {
		last := back[len(back)-1]
		f.SecondsToMove = seconds(last.Sub(left[0]))
		f.SecondsFromCommand = seconds(last.Sub(r.began))
	}
	f.PeakReconnects = peak(back, time.Second)
	f.PeakEvictions = peak(left, r.funnel.Every.D())
	disconnects := map[int]int{}
	served := map[int]clients.Hello{}
	for _, rec := range r.records {
		switch rec.Kind {
		case clients.Joined:
			served[rec.Client] = rec.Hello
		case clients.Left:
			disconnects[rec.Client]++
			f.DisconnectMax = max(f.DisconnectMax, disconnects[rec.Client])
			delete(served, rec.Client)
			if !rec.Planned() {
				f.Unplanned++
			}
		case clients.Refused:
			f.Refused++
		}
	}
	f.DisconnectAvg = math.Round(float64(len(left))/float64(r.clients)*1000) / 1000
	f.NeverBack = r.clients
	home := r.home
	if home == nil {
		home = func(h clients.Hello) bool { return h.Colour == "green" }
	}
	for _, h := range served {
		if home(h) {
			f.NeverBack--
		}
	}
	return f
}

func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*100) / 100 }

// peak is the most moments in any half-open window of the given length; the
// moments are in order.
func peak(at []time.Time, window time.Duration) int {
	most, first := 0, 0
	for i, t := range at {
		for t.Sub(at[first]) >= window {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// allowed is the most disconnects that the clients may see in a window: the cap,
// one more at the window's edge, and what the cap allows in the time by which one
// disconnect may be seen later than another.
func (f figures) allowed(limit units.Funnel) int {
	late := time.Duration(f.SlowestEcho) * time.Millisecond
	return limit.Close + 1 + int(time.Duration(limit.Close)*late/limit.Every.D())
}

// broken names the first promise that the run did not keep; nil when it kept all.
func (f figures) broken(limit units.Funnel) error {
	switch {
	case f.NeverBack > 0:
		return fmt.Errorf("%s: %d of %d clients are not back", f.Name, f.NeverBack, f.Clients)
	case f.Name == storm:
		return nil // it promises nothing else
	case f.Unplanned > 0:
		return fmt.Errorf("%s: %d disconnects were not the funnel's", f.Name, f.Unplanned)
	case f.DisconnectMax != 1 || f.DisconnectAvg != 1:
		return fmt.Errorf("%s: clients were disconnected up to %d times and %g times on average, not exactly once each", f.Name, f.DisconnectMax, f.DisconnectAvg)
	case f.PeakEvictions > f.allowed(limit):
		return fmt.Errorf("%s: %d clients were disconnected within %s, the cap is %d (%d as seen at the clients, with echoes of up to %d ms)",
			f.Name, f.PeakEvictions, limit.Every, limit.Close, f.allowed(limit), f.SlowestEcho)
	}
	return nil
}

// point is a value at a time, in seconds since the first disconnect.
type point struct{ x, y float64 }

// connections is how many clients some instances serve over time, as a staircase
// with a step every grid at most.
func (r recording) connections(of func(clients.Hello) bool, from, to float64, grid time.Duration) (line []point) {
	start, n, i := r.start(), 0, 0
	for x := from; x <= to; x += grid.Seconds() {
		before := n
		for ; i < len(r.records) && r.records[i].At.Sub(start).Seconds() <= x; i++ {
			switch rec := r.records[i]; {
			case rec.Kind == clients.Refused || !of(rec.Hello):
			case rec.Kind == clients.Joined:
				n++
			case rec.Kind == clients.Left:
				n--
			}
		}
		if before != n || len(line) == 0 {
			if len(line) > 0 {
				line = append(line, point{x, float64(before)})
			}
			line = append(line, point{x, float64(n)})
		}
	}
	return append(line, point{to, float64(n)})
}

// reconnects is how many clients came back in each second.
func (r recording) reconnects(from, to float64) (bars []point) {
	start := r.start()
	bars = make([]point, int(math.Ceil(to-from)))
	for i := range bars {
		bars[i].x = from + float64(i)
	}
	for _, t := range r.returns() {
		if i := int(math.Floor(t.Sub(start).Seconds() - from)); i >= 0 && i < len(bars) {
			bars[i].y++
		}
	}
	return bars
}

// start is the charts' zero: the first disconnect, or the command if there was none.
func (r recording) start() time.Time {
	if left := r.disconnects(); len(left) > 0 {
		return left[0]
	}
	return r.began
}
