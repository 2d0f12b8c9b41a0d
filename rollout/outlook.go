package rollout

import (
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
)

// Outlook is what a running rollout has before it, if nothing comes in between.
// It decides nothing: it is what operators are shown.
type Outlook struct {
	// Turns is every member that lets its connections go, with the batch in which
	// it does: the one that it is or was in, else the one that it would be in. 0
	// is none: there is no stagger, or it has nothing to let go.
	Turns map[discovery.InstanceID]int
	// Limit is the most closes of the next step: the cap, or more when it hurries.
	// Pace is that with the adaptive pace, and Why says why it is less.
	Limit, Pace int
	Why         string
}

// Foresee tells what the running rollout has before it; the zero value without
// one.
func Foresee(s State, seen Seen, now time.Time) Outlook {
	r := s.Rollout
	if r == nil {
		return Outlook{}
	}
	d := decider{s: s, seen: seen, now: now}
	out := Outlook{Turns: map[discovery.InstanceID]int{}, Limit: d.limit()}
	out.Pace, out.Why = d.paced()
	for _, key := range d.olds() {
		out.Turns[key] = s.Members[key].Turn
	}
	if r.Policy.Stagger.Instances.IsZero() {
		return out
	}
	batch := r.Batch
	for turn := range slices.Chunk(d.inTurn(d.oldSide().waiting), max(1, d.batch())) {
		batch++
		for _, key := range turn {
			out.Turns[key] = batch
		}
	}
	return out
}

// Room is what the instances of a colour that take new connections hold, and
// the most that they may: their capacities, times the headroom.
type Room struct {
	Held     int `json:"held"`
	Capacity int `json:"capacity"`
}

// Rooms tells the room of each colour whose instances that take new
// connections all have a capacity and say what they hold. policy counts while
// there is no rollout.
func Rooms(s State, seen Seen, policy Policy, now time.Time) map[discovery.Colour]Room {
	if s.Rollout != nil {
		policy = s.Rollout.Policy
	}
	d := decider{s: s, seen: seen, now: now}
	out := map[discovery.Colour]Room{}
	for _, c := range discovery.Colours {
		open, room, known := d.open(c), Room{}, true
		for _, key := range open {
			n, says := d.filling(key, s.Members[key])
			capacity := d.capacity(key, s.Members[key], policy)
			room.Held, room.Capacity = room.Held+n, room.Capacity+capacity
			known = known && says && capacity > 0
		}
		if known && len(open) > 0 {
			out[c] = room
		}
	}
	return out
}
