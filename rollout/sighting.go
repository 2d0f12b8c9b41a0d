package rollout

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/drain"
)

const (
	// askMoving is how often an instance is asked in a rollout and while its side
	// drains, askOthers all other times, askFailing after a failure.
	askMoving  = 500 * time.Millisecond
	askOthers  = 2 * time.Second
	askFailing = time.Second
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
}

// Assignments lists the assignment of each member that has a drain endpoint.
func Assignments(s State, w Wish) map[discovery.InstanceID]Assignment {
	out := map[discovery.InstanceID]Assignment{}
	for key, m := range maps.All(s.Members) {
		if m.Drain == "" {
			continue
		}
		every := askOthers
		if s.Rollout != nil || s.drains(m) {
			every = askMoving
		}
		out[key] = Assignment{Endpoint: m.Drain, Instruction: w.Orders[key], Every: every}
	}
	return out
}

// Pause is the mean time until the instance is asked again, after the request that
// followed the sighting last was answered by status, or failed with err.
func (a Assignment) Pause(last Sighting, status drain.Status, err error) time.Duration {
	switch untold := err == nil && !a.Instruction.ShownBy(status); {
	case err != nil, untold && last.Err == "" && !last.At.IsZero():
		return askFailing
	case untold:
		return 0
	}
	return a.Every
}

// Same reports whether two instructions say the same.
func (i Instruction) Same(other Instruction) bool {
	switch {
	case i.Drain != nil && other.Drain != nil:
		return i.Drain.Rollout == other.Drain.Rollout && i.Drain.Epoch == other.Drain.Epoch && i.Drain.Step == other.Drain.Step
	case i.Serve != nil && other.Serve != nil:
		return *i.Serve == *other.Serve
	}
	return i == other
}

// ShownBy reports whether an instance of this status follows the instruction. A
// release is needed only by an instance that an order closed: one that closed its
// gate by itself is going away and has no leave to stay.
func (i Instruction) ShownBy(s drain.Status) bool {
	switch {
	case i.Drain != nil:
		return s.Rollout == i.Drain.Rollout && s.State != drain.Serving &&
			cmp.Or(cmp.Compare(s.Epoch, i.Drain.Epoch), cmp.Compare(s.Step, i.Drain.Step)) >= 0
	case i.Serve != nil:
		return s.State == drain.Serving || s.Rollout == ""
	}
	return true
}

// After is the sighting once a request was answered by status, or failed with err,
// at now. An answer that contradicts the one before counts as a failure.
func (s Sighting) After(status drain.Status, err error, now time.Time) Sighting {
	last := s
	if err == nil && !last.At.IsZero() {
		err = contradiction(last.Status, status)
	}
	if err == nil {
		s.Err, s.FailingSince, s.Refused = "", time.Time{}, false
		if gap := now.Sub(last.At).Seconds(); !last.At.IsZero() && gap > 0.05 && status.Accepted >= last.Status.Accepted {
			s.PerSecond = float64(status.Accepted-last.Status.Accepted) / gap
		}
		s.Status, s.At = status, now
		return s
	}
	refused := errors.Is(err, syscall.ECONNREFUSED)
	if last.Err == "" {
		s.FailingSince, s.Refused = now, refused
	} else if refused && !last.Refused {
		s.FailingSince, s.Refused = now, true
	} else {
		s.Refused = refused
	}
	s.Err, s.ErrAt = err.Error(), now
	return s
}

// Differs reports whether the sighting next says more than new counts.
func (s Sighting) Differs(next Sighting) bool {
	a, b := s.Status, next.Status
	return a.State != b.State || a.Rollout != b.Rollout || a.Epoch != b.Epoch || a.Step != b.Step ||
		(s.Err == "") != (next.Err == "") || s.Refused != next.Refused
}

// contradiction reports that an instance says what cannot be so: that it holds more
// than before although it refuses, and admitted none in between.
func contradiction(before, now drain.Status) error {
	same := before.State != drain.Serving && before.Rollout == now.Rollout && before.Epoch == now.Epoch && before.Accepted == now.Accepted
	if same && now.Active > before.Active {
		return fmt.Errorf("its answers contradict each other: it holds %d connections after %d and admitted none in between; mend its drain endpoint", now.Active, before.Active)
	}
	return nil
}
