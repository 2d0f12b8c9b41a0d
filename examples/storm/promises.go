package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// scenarioFigures are what a scenario comes to.
type scenarioFigures struct {
	figures
	Scenario string `json:"scenario"`
	// Planned is how many disconnects were the funnel's, and PlannedMax how often
	// it closed one client at most.
	Planned    int `json:"planned_disconnects"`
	PlannedMax int `json:"planned_per_client_max"`
	// Reasons are the codes of the reasons that watch showed, in order.
	Reasons []rollout.Code `json:"reasons"`
}

func (p play) measure() scenarioFigures {
	f := scenarioFigures{figures: p.recording.measure(), Scenario: p.scenario.name, Reasons: p.codes()}
	times := map[int]int{}
	for _, rec := range p.closed() {
		f.Planned++
		times[rec.Client]++
		f.PlannedMax = max(f.PlannedMax, times[rec.Client])
	}
	f.PeakEvictions = p.peak(p.exp.cap.Every.D())
	return f
}

// peak is the most that the funnel closed in any window of that length.
func (p play) peak(window time.Duration) int {
	var at []time.Time
	for _, rec := range p.closed() {
		at = append(at, rec.At)
	}
	return peak(at, window)
}

// closed are the disconnects that were the funnel's.
func (p play) closed() (all []clients.Record) {
	for _, rec := range p.records {
		if rec.Planned() {
			all = append(all, rec)
		}
	}
	return all
}

// broken names the first promise that was not kept; nil when all were.
func (p play) broken() error {
	f := p.measure()
	switch limit := p.exp.cap; {
	case f.NeverBack > 0:
		return fmt.Errorf("%d of %d clients are not on %s at the end", f.NeverBack, f.Clients, p.ends)
	case p.peak(limit.Every.D()*4/5) > limit.Close+1: // on a busy machine a close may come late
		return fmt.Errorf("%d clients were let go within %s, the cap is %s", p.peak(limit.Every.D()*4/5), limit.Every.D()*4/5, limit)
	case f.PlannedMax > p.most || float64(f.Planned) > p.mean*float64(f.Clients):
		return fmt.Errorf("the funnel closed %d connections of %d clients, up to %d of one; expected %g on average and %d at most",
			f.Planned, f.Clients, f.PlannedMax, p.mean, p.most)
	case !p.reasons.MatchString(p.story()):
		return fmt.Errorf("watch showed %q, expected %s", p.story(), p.reasons)
	}
	for _, rec := range p.records {
		if rec.Kind == clients.Left && !rec.Planned() && !p.dead[rec.Hello.Instance] {
			return fmt.Errorf("client %d was disconnected from %s by something else than the funnel (%d: %s)", rec.Client, rec.Hello.Instance, rec.Code, rec.Cause)
		}
	}
	if p.holds == nil {
		return nil
	}
	return p.holds(p)
}

// late is by how much something may be seen late at the clients.
func (p play) late() time.Duration { return p.slowestEcho + 50*time.Millisecond }

// closesNothing: the funnel closes nothing between two moments, and goes on after
// that.
func (p play) closesNothing(from, to time.Time) error {
	after := 0
	for _, rec := range p.closed() {
		switch {
		case rec.At.After(from.Add(p.late())) && rec.At.Before(to):
			return fmt.Errorf("client %d was let go %s after the funnel should have stopped", rec.Client, rec.At.Sub(from))
		case rec.At.After(to):
			after++
		}
	}
	if after == 0 {
		return fmt.Errorf("the funnel closed nothing after it could go on")
	}
	return nil
}

// keepsWindow: nobody is let go while as many as the window allows are on their
// way. What an instance took with it when it died is noticed within two steps.
func (p play) keepsWindow() error {
	window := p.share(p.window, p.clients)
	away := map[int]bool{}
	for _, rec := range p.records {
		switch {
		case rec.Kind == clients.Joined:
			delete(away, rec.Client)
			continue
		case rec.Kind != clients.Left:
			continue
		}
		away[rec.Client] = true
		noticed := len(p.done) == 0 || rec.At.Before(p.done[0]) || rec.At.After(p.done[0].Add(2*p.exp.cap.Every.D()))
		if rec.Planned() && noticed && len(away) > window+1 {
			return fmt.Errorf("%d clients were on their way after %.1f s, the window is %d", len(away), rec.At.Sub(p.began).Seconds(), window)
		}
	}
	return nil
}

// keepsRoom: green never holds more than its instances have room for.
func (p play) keepsRoom() error {
	green := 0
	for _, rec := range p.records {
		switch {
		case rec.Hello.Colour != "green":
		case rec.Kind == clients.Joined:
			green++
		case rec.Kind == clients.Left:
			green--
		}
		instances := p.green
		if len(p.done) > 0 && rec.At.After(p.done[0]) {
			instances += reinforcement
		}
		if room := instances * p.share(p.capacity, p.clients); green > room {
			return fmt.Errorf("green holds %d after %.1f s, its room is %d", green, rec.At.Sub(p.began).Seconds(), room)
		}
	}
	return nil
}

// oneByOne: no two blue instances let connections go at the same time, and
// between two there is the soak.
func (p play) oneByOne(soak time.Duration) error {
	var last clients.Record
	gone := map[string]bool{}
	for _, rec := range p.closed() {
		if rec.Hello.Instance == last.Hello.Instance {
			last = rec
			continue
		}
		if gone[rec.Hello.Instance] {
			return fmt.Errorf("%s lets go again after %s did", rec.Hello.Instance, last.Hello.Instance)
		}
		if between := rec.At.Sub(last.At); !last.At.IsZero() && between < soak-p.late() {
			return fmt.Errorf("%s began %s after %s, before the soak of %s was over", rec.Hello.Instance, between, last.Hello.Instance, soak)
		}
		gone[last.Hello.Instance] = true
		last = rec
	}
	return nil
}

// neverOntoTheLeaving: nobody who was let go after the second promotion, and
// nobody at all once every proxy had confirmed it, came to an instance that was to
// be drained itself.
func (p play) neverOntoTheLeaving() error {
	promoted, last := p.done[1], ""
	for _, s := range p.watched {
		last = cmp.Or(s.Rollout, last)
	}
	second := slices.IndexFunc(p.watched, func(s sight) bool { return s.Rollout == last && s.Phase == state.Draining && s.At.After(promoted) })
	if second < 0 {
		return fmt.Errorf("watch never showed the second rollout draining")
	}
	switched := p.watched[second].At
	leftAt := map[int]time.Time{}
	for _, rec := range p.records {
		switch {
		case rec.Kind == clients.Left:
			leftAt[rec.Client] = rec.At
		case rec.Kind == clients.Joined && rec.Hello.Version != p.ends && (rec.At.After(switched) || leftAt[rec.Client].After(promoted)):
			return fmt.Errorf("client %d was sent to %s (%s) %.1f s after the second promotion", rec.Client, rec.Hello.Instance, rec.Hello.Version, rec.At.Sub(promoted).Seconds())
		}
	}
	return nil
}
