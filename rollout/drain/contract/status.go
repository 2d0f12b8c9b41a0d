// Package contract is the drain contract as both sides speak it: the words that an
// instance and a control plane say to each other, their rules, and the control plane's
// Client. The instance's side is the package above. It imports the standard library only.
package contract

import (
	"cmp"
	"fmt"
)

// State is what an instance is doing with its connections.
type State string

const (
	// Serving: new connections are accepted.
	Serving State = "serving"
	// Draining: new connections are refused, some are still there.
	Draining State = "draining"
	// Drained: new connections are refused, and Active, Requests and Lingering are 0.
	Drained State = "drained"
)

// Status is the answer of GET and PUT /drain. Totals count since the process
// started and never fall.
type Status struct {
	State State `json:"state"`
	// Boot names the process, another one after each start: random, at most
	// MaxBoot bytes, and the same in every answer of one process. Empty where the
	// instance has none: there, a total that falls is a new process.
	Boot string `json:"boot,omitempty"`
	// Can is what it understands beyond the first version of the contract.
	Can []Ability `json:"can,omitempty"`
	// Active is what lasts: connections held now, but for Lingering. It is what
	// ceilings bound.
	Active int `json:"active"`
	// Requests is how many short requests are under way, which end by themselves, and
	// Lingering how many connections were told to go and have not ended. Neither is
	// in Active. Left out: 0, or not told apart.
	Requests  int    `json:"requests,omitempty"`
	Lingering int    `json:"lingering,omitempty"`
	Accepted  uint64 `json:"accepted"` // total admitted
	// Evicted is the total that the funnel let go, each once: when it was asked, or closed
	// without that.
	Evicted uint64 `json:"evicted"`
	// Asked is how many of Active were asked to come over, and have notice; ceilings bound
	// the others. Left is the total of those asked that have gone by themselves, Overstayed
	// of those that were closed at the end of their notice.
	Asked      int    `json:"asked,omitempty"`
	Left       uint64 `json:"left,omitempty"`
	Overstayed uint64 `json:"overstayed,omitempty"`
	// Returned is the total of admitted connections that the application knew
	// as returning clients; nil when it never says.
	Returned *uint64 `json:"returned"`
	// Ticketed is the total of admitted connections whose client brought the ticket
	// that its goodbye gave it, each ticket once; nil when tickets are not counted.
	Ticketed *uint64 `json:"ticketed,omitempty"`
	Refused  uint64  `json:"refused,omitempty"` // total not admitted
	// HandshakeMS is the 99th percentile of how long handshakes took lately; nil
	// when it cannot tell or there were none.
	HandshakeMS *int `json:"handshake_ms,omitempty"`
	// GraceMS is how long an instance that was told to stop still has before it ends, with
	// what is left; nil where it was not, or knows no end.
	GraceMS *int64 `json:"grace_ms,omitempty"`
	Limit   int    `json:"limit"`   // most connections it admits; 0 is no limit
	Ceiling *int   `json:"ceiling"` // what it is getting down to; nil: it holds all
	Rollout string `json:"rollout,omitempty"`
	Epoch   uint64 `json:"epoch"`
	Step    uint64 `json:"step"`
	// Peers is the same by the machine at the other end of the TCP connections: by its
	// IP address, or OtherPeers. What they hold sums up to Held. Nil where the
	// instance does not say it; nothing is then proven of a proxy that is lost.
	Peers map[string]Peer `json:"peers,omitzero"`
	// Levels is each level that an order or a release has named, Rollout's among them; nil
	// where there is none. Ceiling, Rollout, Epoch and Step above are those of Rollout.
	Levels map[string]Level `json:"levels,omitempty"`
}

// Held is all that the instance holds: what a proxy counts there.
func (s Status) Held() int { return s.Active + s.Requests + s.Lingering }

// What a status can say at most. An instance that says more is wrong or lies: no
// process holds so many connections, and above MaxTotal the JSON numbers of many
// languages are not whole any more.
const (
	MaxConnections = 100_000_000
	MaxTotal       = 1 << 53
	MaxBoot        = 64 // bytes
)

// Check reports the first rule that the status breaks, in one sentence.
func (s Status) Check() error {
	switch {
	case s.State != Serving && s.State != Draining && s.State != Drained:
		return fmt.Errorf("state is %q; it must be serving, draining or drained", s.State)
	case len(s.Boot) > MaxBoot:
		return fmt.Errorf("boot has %d bytes; it must have at most %d", len(s.Boot), MaxBoot)
	case s.Active < 0:
		return fmt.Errorf("active is %d; it must be 0 or more", s.Active)
	case s.Requests < 0 || s.Lingering < 0:
		return fmt.Errorf("requests is %d and lingering %d; they must be 0 or more", s.Requests, s.Lingering)
	case s.Active > MaxConnections:
		return fmt.Errorf("active is %d; no process holds more than %d connections", s.Active, MaxConnections)
	case max(s.Requests, s.Lingering) > MaxConnections:
		return fmt.Errorf("requests is %d and lingering %d; no process holds more than %d connections", s.Requests, s.Lingering, MaxConnections)
	case s.State == Drained && s.Active > 0:
		return fmt.Errorf("state is drained but active is %d; drained means 0", s.Active)
	case s.State == Drained && s.Held() > 0:
		return fmt.Errorf("state is drained but requests is %d and lingering %d; drained means 0", s.Requests, s.Lingering)
	case max(s.Accepted, s.Refused) > MaxTotal:
		return fmt.Errorf("accepted is %d and refused %d; a total is at most %d", s.Accepted, s.Refused, uint64(MaxTotal))
	case max(s.Epoch, s.Step) > MaxTotal:
		return fmt.Errorf("epoch is %d and step %d; nothing was ever ordered above %d", s.Epoch, s.Step, uint64(MaxTotal))
	case uint64(s.Active) > s.Accepted:
		return fmt.Errorf("active is %d but accepted is %d; only what was accepted can be held", s.Active, s.Accepted)
	case s.Evicted > s.Accepted:
		return fmt.Errorf("evicted is %d but accepted is %d; only what was accepted can be evicted", s.Evicted, s.Accepted)
	case s.Asked < 0 || s.Asked > s.Active:
		return fmt.Errorf("asked is %d but active is %d; who was asked is still active", s.Asked, s.Active)
	case s.Left > s.Evicted || s.Overstayed > s.Evicted-s.Left:
		return fmt.Errorf("left is %d and overstayed %d but evicted is %d; who was asked is evicted", s.Left, s.Overstayed, s.Evicted)
	case s.Returned != nil && *s.Returned > s.Accepted:
		return fmt.Errorf("returned is %d but accepted is %d; only what was accepted can be a return", *s.Returned, s.Accepted)
	case s.Ticketed != nil && *s.Ticketed > s.Accepted:
		return fmt.Errorf("ticketed is %d but accepted is %d; only who was accepted can have brought a ticket", *s.Ticketed, s.Accepted)
	case s.HandshakeMS != nil && (*s.HandshakeMS < 0 || int64(*s.HandshakeMS) > MaxOver.Milliseconds()):
		return fmt.Errorf("handshake_ms is %d; it must be between 0 and %d, or left out", *s.HandshakeMS, MaxOver.Milliseconds())
	case s.GraceMS != nil && (*s.GraceMS < 0 || *s.GraceMS > MaxTotal):
		return fmt.Errorf("grace_ms is %d; it must be 0 or more, or left out", *s.GraceMS)
	case s.Limit < 0:
		return fmt.Errorf("limit is %d; it must be 0 or more, 0 for none", s.Limit)
	case s.Ceiling != nil && *s.Ceiling < 0:
		return fmt.Errorf("ceiling is %d; it must be 0 or more, or null", *s.Ceiling)
	}
	if l, ok := s.Levels[Rollout]; ok && (l.Epoch != s.Epoch || l.Step != s.Step || l.Rollout != s.Rollout) {
		return fmt.Errorf("the level %s says rollout %q, epoch %d, step %d, and the status rollout %q, epoch %d, step %d; they are the same",
			Rollout, l.Rollout, l.Epoch, l.Step, s.Rollout, s.Epoch, s.Step)
	}
	return cmp.Or(checkAbilities(s.Can), checkLevels(s.Levels, s.Accepted), checkPeers(s.Peers))
}
