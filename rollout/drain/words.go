// Package drain lets live connections go a few at a time. It holds the words of
// the drain contract, the instance's side of it (Gate, with wrappers for
// net/http, net.Listener and servers that own their connections) and the control
// plane's side (Client). It imports the standard library only, so that an
// instance can use it without taking anything else.
package drain

import (
	"cmp"
	"fmt"
	"time"
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

// Order is the body of PUT /drain: refuse new connections, hold at most Ceiling,
// and get there evenly: the first close StartMS after the order arrives, the
// others at distances of OverMS/n. A nil Ceiling closes nothing: connections end
// only by themselves. Repeating an order changes nothing; one with an older
// (Epoch, Step) than the last is refused with 409. A newer order replaces the
// running one whole, so a pause is an order with a nil Ceiling.
type Order struct {
	Rollout string `json:"rollout"`
	Epoch   uint64 `json:"epoch"`
	Step    uint64 `json:"step"`
	Ceiling *int   `json:"ceiling"`
	OverMS  int64  `json:"over_ms"`
	StartMS int64  `json:"start_ms"`
	// Pick is which go first, as far as the instance can tell. It is sent only
	// where it is not empty; an instance that does not know it picks at random.
	Pick Pick `json:"order,omitempty"`
	// NoticeMS above 0 has connections be asked to come over in place of closed: Ceiling is
	// then that of Active without Asked, and who was asked and has not gone is closed so long
	// after its ask. A nil Ceiling has that time stand still; a release, or an order of
	// another rollout, takes the asks back. What cannot be asked is closed in its turn.
	NoticeMS int64 `json:"notice_ms,omitempty"`
	// Level names the order; empty is Rollout. Each level has its own epoch, step and
	// ceiling, bounds only the connections that it covers, and is replaced or released
	// by itself. Who is covered by several leaves and is refused by any of them.
	Level string `json:"level,omitempty"`
	// From are the nodes whose connections it covers; nil: everybody's. A node is a proxy by
	// the name that it shows in NodeHeader, or by its IP address where it shows none.
	From []string `json:"from,omitzero"`
}

func (o Order) levelName() string   { return cmp.Or(o.Level, Rollout) }
func (r Release) levelName() string { return cmp.Or(r.Level, Rollout) }

// Release is the body of DELETE /drain: serve again. An Epoch older than the
// last order's is refused with 409.
type Release struct {
	Rollout string `json:"rollout"`
	Epoch   uint64 `json:"epoch"`
	Level   string `json:"level,omitempty"` // as in an Order; the others stand on
}

// Check reports the first rule that the release breaks, in one sentence.
func (r Release) Check() error { return checkName(r.Level) }

func checkName(level string) error {
	if len(level) > MaxName {
		return fmt.Errorf("level has %d bytes; it must have at most %d", len(level), MaxName)
	}
	return nil
}

// MaxOver bounds Order.OverMS and Order.StartMS: a step longer than a day is a
// mistake in units.
const MaxOver = 24 * time.Hour

// Check reports the first rule that the order breaks, in one sentence.
func (o Order) Check() error {
	switch {
	case o.Rollout == "":
		return fmt.Errorf("rollout is empty; name the rollout that orders this")
	case o.Epoch == 0:
		return fmt.Errorf("epoch is 0; epochs start at 1")
	case o.Ceiling != nil && *o.Ceiling < 0:
		return fmt.Errorf("ceiling is %d; it must be 0 or more, or null to hold", *o.Ceiling)
	case o.OverMS < 0 || o.OverMS > MaxOver.Milliseconds():
		return fmt.Errorf("over_ms is %d; it must be between 0 and %d", o.OverMS, MaxOver.Milliseconds())
	case o.NoticeMS < 0 || o.NoticeMS > MaxOver.Milliseconds():
		return fmt.Errorf("notice_ms is %d; it must be between 0 and %d", o.NoticeMS, MaxOver.Milliseconds())
	case o.StartMS < 0 || o.StartMS > MaxOver.Milliseconds():
		return fmt.Errorf("start_ms is %d; it must be between 0 and %d", o.StartMS, MaxOver.Milliseconds())
	}
	return cmp.Or(o.Pick.Check(), checkName(o.Level), checkFrom(o.From))
}
