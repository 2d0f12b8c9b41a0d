package main

import (
	"fmt"
	"math"
	"slices"
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
	// ended is when the clients were last looked at.
	ended time.Time
	// messages is what became of what was said meanwhile.
	messages clients.Messages
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
	// PeakEvictions is the most that were let go, or asked, in any window of length every.
	PeakEvictions int `json:"peak_evictions_per_window"`
	// LateCloses is by how many that may be seen too high, as clients look late.
	LateCloses    int     `json:"late_closes_per_window"`
	DisconnectMax int     `json:"disconnects_per_client_max"`
	DisconnectAvg float64 `json:"disconnects_per_client_mean"`
	// Unplanned counts the disconnects that were not the funnel's (close code 1012).
	Unplanned int `json:"unplanned_disconnects"`
	// Asked counts the asks, AskedMax those of one client at most.
	Asked    int `json:"asked"`
	AskedMax int `json:"asked_per_client_max"`
	// NeverBack counts the clients that are not where they belong at the end.
	NeverBack int `json:"never_back"`
	// SlowestEcho is how long a message and its echo took at most, in milliseconds.
	SlowestEcho int `json:"slowest_echo_ms"`
	// Refused counts the attempts to connect that did not succeed.
	Refused int `json:"refused_attempts"`
	// Away* is how long a client was without a connection in all, in milliseconds rounded
	// up: half of the clients were at most AwayP50, 99 % at most AwayP99.
	AwayP50 int `json:"away_ms_p50"`
	AwayP99 int `json:"away_ms_p99"`
	AwayMax int `json:"away_ms_max"`
	// Lost counts messages to and from clients that did not arrive; Twice those that came on
	// both connections and were counted once, among the Heard.
	Heard int `json:"messages"`
	Lost  int `json:"messages_lost"`
	Twice int `json:"messages_twice"`
}

// fields explains the figures to whoever reads the JSON.
var fields = map[string]string{
	"seconds_to_move":            "from the first client that was let go, or asked, to the last one's return",
	"seconds_from_command":       "from the stop of the blue processes (storm) or rolloutctl promote to the last client's return",
	"peak_reconnects_per_s":      "most returns in any window of one second",
	"peak_evictions_per_window":  "most that were let go, or asked, in any window of length every",
	"late_closes_per_window":     "by so many that may be seen too high: what the cap allows in slowest_echo_ms",
	"asked":                      "how often a client was asked to come over; asked_per_client_max: one client at most",
	"away_ms_max":                "how long a client was without a connection in all, as it measured; likewise the half (p50) and 99 % of them",
	"messages_lost":              "numbered messages that a client missed, and messages of clients without an answer",
	"messages_twice":             "messages that came on the old and the new connection, and were counted once",
	"unplanned_disconnects":      "disconnects without the funnel's close code 1012",
	"never_back":                 "clients that are not connected to green at the end (in scenarios: to the release that is live then)",
	"planned_disconnects":        "disconnects with the funnel's close code 1012; peak_evictions_per_window counts only these in scenarios",
	"reasons":                    "codes of the reasons that rolloutctl watch showed, in order",
	"slowest_echo_ms":            "the longest that a message through Envoy and its echo took: disconnects may be seen late by as much",
	"refused_attempts":           "attempts to connect that did not succeed",
	"disconnects_per_client_max": "over all clients, those never disconnected included; likewise the mean",
}

// among is the length that a share of all have at most, in milliseconds rounded up.
func among(all []time.Duration, share float64) int {
	if len(all) == 0 {
		return 0
	}
	nth := int(math.Ceil(share*float64(len(all)))) - 1
	return int((all[nth] + time.Millisecond - 1) / time.Millisecond)
}

func (r recording) measure() figures {
	f := figures{Name: r.name, Clients: r.clients, SlowestEcho: int(r.slowestEcho.Milliseconds()),
		Heard: r.messages.Heard, Lost: r.messages.Lost + r.messages.Unanswered, Twice: r.messages.Twice}
	gone, back, away := r.letGo(), r.returns(), r.away()
	if len(gone) > 0 && len(back) > 0 {
		last := back[len(back)-1]
		f.SecondsToMove = seconds(last.Sub(gone[0]))
		f.SecondsFromCommand = seconds(last.Sub(r.began))
	}
	f.PeakReconnects = peak(back, time.Second)
	f.PeakEvictions = peak(gone, r.funnel.Every.D())
	f.LateCloses = int(time.Duration(r.funnel.Close) * r.slowestEcho.Truncate(time.Millisecond) / r.funnel.Every.D())
	f.AwayP50, f.AwayP99, f.AwayMax = among(away, 0.5), among(away, 0.99), among(away, 1)
	f.count(r)
	return f
}

// count counts what happened to each client.
func (f *figures) count(r recording) {
	disconnects, asks, all := map[int]int{}, map[int]int{}, 0
	served := map[int][]clients.Hello{}
	for _, rec := range r.records {
		c := rec.Client
		switch rec.Kind {
		case clients.Joined:
			served[c] = append(served[c], rec.Hello)
		case clients.Left:
			all++
			disconnects[c]++
			f.DisconnectMax = max(f.DisconnectMax, disconnects[c])
			served[c] = without(served[c], rec.Hello)
			if !rec.Planned() {
				f.Unplanned++
			}
		case clients.Asked:
			f.Asked++
			asks[c]++
			f.AskedMax = max(f.AskedMax, asks[c])
		case clients.Ended:
			served[c] = without(served[c], rec.Hello)
		case clients.Refused:
			f.Refused++
		}
	}
	f.DisconnectAvg = math.Round(float64(all)/float64(r.clients)*1000) / 1000
	home := r.home
	if home == nil {
		home = func(h clients.Hello) bool { return h.Colour == "green" }
	}
	f.NeverBack = r.clients
	for _, by := range served {
		if slices.ContainsFunc(by, home) {
			f.NeverBack--
		}
	}
}

// without is by, without one connection that said h.
func without(by []clients.Hello, h clients.Hello) []clients.Hello {
	if i := slices.Index(by, h); i >= 0 {
		return slices.Delete(by, i, i+1)
	}
	return by
}

func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*100) / 100 }

// allowed is the most that the clients may see let go in a window: the cap, one more at
// the window's edge, and what the cap allows in the time by which one may be seen later
// than another.
func (f figures) allowed(limit units.Funnel) int { return limit.Close + 1 + f.LateCloses }

// broken names the first promise that the run did not keep; nil when it kept all.
func (f figures) broken(limit units.Funnel) error {
	switch {
	case f.NeverBack > 0:
		return fmt.Errorf("%s: %d of %d clients are not back", f.Name, f.NeverBack, f.Clients)
	case f.Name == storm:
		return nil // it promises nothing else
	case f.Unplanned > 0:
		return fmt.Errorf("%s: %d disconnects were not the funnel's", f.Name, f.Unplanned)
	case f.PeakEvictions > f.allowed(limit):
		return fmt.Errorf("%s: %d clients were let go within %s, the cap is %d (%d as seen at the clients, with echoes of up to %d ms)",
			f.Name, f.PeakEvictions, limit.Every, limit.Close, f.allowed(limit), f.SlowestEcho)
	case f.Name == asked:
		return f.interrupted()
	case f.DisconnectMax != 1 || f.DisconnectAvg != 1:
		return fmt.Errorf("%s: clients were disconnected up to %d times and %g times on average, not exactly once each", f.Name, f.DisconnectMax, f.DisconnectAvg)
	}
	return nil
}

// interrupted names what clients noticed that were asked; nil when it was nothing.
func (f figures) interrupted() error {
	switch {
	case f.AskedMax != 1 || f.Asked != f.Clients:
		return fmt.Errorf("%s: %d clients were asked %d times, up to %d times one, not exactly once each", f.Name, f.Clients, f.Asked, f.AskedMax)
	case f.DisconnectMax > 0:
		return fmt.Errorf("%s: clients were disconnected, up to %d times", f.Name, f.DisconnectMax)
	case f.AwayMax > 0:
		return fmt.Errorf("%s: a client was without a connection for %d ms", f.Name, f.AwayMax)
	case f.Lost > 0:
		return fmt.Errorf("%s: %d messages were lost", f.Name, f.Lost)
	}
	return nil
}
