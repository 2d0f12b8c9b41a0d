package contract

import "fmt"

// Rollout is the level of an order that names none: the funnel's.
const Rollout = "rollout"

// MaxLevels is how many levels an instance remembers.
const MaxLevels = 64

// Level is what an instance says of one of its levels: Serving once it was released.
type Level struct {
	State State `json:"state"`
	// Active, Asked, Requests and Lingering are those of the connections that it covers.
	Active    int      `json:"active"`
	Asked     int      `json:"asked,omitempty"`
	Requests  int      `json:"requests,omitempty"`
	Lingering int      `json:"lingering,omitempty"`
	Ceiling   *int     `json:"ceiling"`
	Rollout   string   `json:"rollout"`
	Epoch     uint64   `json:"epoch"`
	Step      uint64   `json:"step"`
	From      []string `json:"from,omitempty"` // nil: it covers everybody
}

// LevelOf is the level of that name: Rollout's also where the instance says no levels.
// The zero value, of no state, is one that was never named.
func (s Status) LevelOf(name string) Level {
	if l, ok := s.Levels[name]; ok || name != Rollout {
		return l
	}
	return Level{State: s.State, Active: s.Active, Asked: s.Asked, Requests: s.Requests, Lingering: s.Lingering, Ceiling: s.Ceiling, Rollout: s.Rollout, Epoch: s.Epoch, Step: s.Step}
}

func checkLevels(levels map[string]Level, accepted uint64) error {
	if len(levels) > MaxLevels {
		return fmt.Errorf("levels has %d entries; it must have at most %d", len(levels), MaxLevels)
	}
	for name, l := range levels {
		if name == "" || len(name) > MaxName {
			return fmt.Errorf("levels has a name of %d bytes; it must have 1 to %d", len(name), MaxName)
		}
		as := Status{State: l.State, Active: l.Active, Accepted: accepted, Asked: l.Asked, Lingering: l.Lingering, Ceiling: l.Ceiling, Epoch: l.Epoch, Step: l.Step}
		if err := as.Check(); err != nil {
			return fmt.Errorf("level %q: %w", name, err)
		}
		if err := checkFrom(l.From); err != nil {
			return fmt.Errorf("level %q: %w", name, err)
		}
	}
	return nil
}
