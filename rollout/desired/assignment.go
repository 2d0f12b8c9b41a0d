package desired

import (
	"cmp"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/state"
)

const (
	// askMoving is how often an instance is asked in a rollout and while its side
	// drains, askSoon while something is waited for that it says, askIdle all other
	// times, askFailing after a failure.
	askMoving  = 500 * time.Millisecond
	askSoon    = 2 * time.Second
	askIdle    = 30 * time.Second
	askFailing = time.Second
)

// FreshFor is how old the word of an instance may be that a plan is made of: one that
// was heard earlier is asked first. FreshWithin is how long that is waited for.
const (
	FreshFor    = askSoon
	FreshWithin = 2500 * time.Millisecond
)

// Assignment is what the drain endpoint of one member is told and how often it is
// asked.
type Assignment struct {
	// Endpoint is the base URL of the drain endpoint.
	Endpoint string
	// Instruction is what it has to show; the zero value only asks.
	Instruction Instruction
	// Every is the mean time between two requests while nothing is to be told.
	Every time.Duration
	// Signs is what others say of it: when that changes, it is asked soon.
	Signs Signs
}

// Signs is what discovery and the proxies say of an instance. What it says itself may be
// another thing, too, once they say something else.
type Signs struct {
	Health  discovery.Health
	Version string
	// Refused is how many connections the proxies saw it refuse, or answer with an error.
	Refused uint64
}

// Within is how long after its newest answer an instance is to be asked at the latest,
// now that a is assigned to it and not was; 0 is at once.
func (a Assignment) Within(was Assignment) time.Duration {
	switch {
	case !was.Instruction.Same(a.Instruction), a.Every < was.Every:
		return 0
	case a.Signs != was.Signs:
		return min(askSoon, a.Every)
	}
	return a.Every
}

// Pause is the mean time until the instance is asked again, after the request that
// followed the sighting last was answered by status, or failed with err.
func (a Assignment) Pause(last observed.Sighting, status contract.Status, err error) time.Duration {
	switch untold := err == nil && !a.Instruction.ShownBy(status); {
	case err != nil, untold && last.Err == "" && !last.At.IsZero():
		return askFailing
	case untold:
		return 0
	}
	return a.Every
}

// Assignments lists the assignment of each member that has a drain endpoint.
func Assignments(s state.State, w Wish, seen observed.Seen) map[discovery.InstanceID]Assignment {
	out := make(map[discovery.InstanceID]Assignment, len(s.Members))
	fleet := state.Named(s, seen.Fleet)
	for key, m := range s.Members {
		if m.Drain == "" {
			continue
		}
		in := listedAs(fleet, key)
		a := Assignment{Endpoint: m.Drain, Instruction: w.Orders[key], Every: askIdle}
		switch {
		case s.Rollout != nil || s.Drains(m):
			a.Every = askMoving
		case s.Unsettled || awaited(s, m, in, seen.Instances[key]):
			a.Every = askSoon
		}
		if in != nil {
			a.Signs = Signs{Health: in.Health, Version: in.Version}
		}
		a.Signs.Refused = seen.Loads[observed.Place{Colour: m.Colour, Addr: m.Addr}].Refused
		out[key] = a
	}
	return out
}

// awaited reports whether something depends, without a rollout, on what the member says
// next: it left, or is the other colour's, and has to be empty; its registration and its
// process do not fit; or it would get new connections if it said that it takes them.
func awaited(s state.State, m state.Member, in *discovery.Instance, sight observed.Sighting) bool {
	return in == nil || !m.Departed.IsZero() || in.Colour != m.Colour || m.Release.Differs(*in) ||
		s.Weights()[m.Colour] > 0 && (m.Closed || sight.Refusing())
}

// listedAs is the instance of this name in discovery; nil: there is none.
func listedAs(f discovery.Fleet, key discovery.InstanceID) *discovery.Instance {
	i, ok := slices.BinarySearchFunc(f.Instances, key, func(in discovery.Instance, key discovery.InstanceID) int { return cmp.Compare(in.ID, key) })
	if !ok {
		return nil
	}
	return &f.Instances[i]
}
