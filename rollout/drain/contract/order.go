package contract

import (
	"cmp"
	"fmt"
	"time"
)

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

// LevelName is the name of the level that it is for, Rollout where it says none.
func (o Order) LevelName() string { return cmp.Or(o.Level, Rollout) }

// LevelName is that of a release.
func (r Release) LevelName() string { return cmp.Or(r.Level, Rollout) }

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

// What an order can name at most.
const (
	MaxFrom = 256 // nodes
	MaxName = 256 // bytes of a node's name, or a level's
)

func checkFrom(names []string) error {
	switch {
	case names == nil:
		return nil
	case len(names) == 0:
		return fmt.Errorf("from is empty; name the nodes, or leave it out for every connection")
	case len(names) > MaxFrom:
		return fmt.Errorf("from has %d nodes; it must have at most %d", len(names), MaxFrom)
	}
	for _, name := range names {
		if name == "" || len(name) > MaxName {
			return fmt.Errorf("from has a node of %d bytes; a name has 1 to %d", len(name), MaxName)
		}
	}
	return nil
}

// NodeHeader is the request header in which an Envoy says its node id. It replaces
// whatever a client says there.
const NodeHeader = "X-Envoy-Downstream-Service-Node"

// Pick is which connections an instance lets go first. Empty is Random.
type Pick string

const (
	// Random: each is as likely to go as any other.
	Random Pick = "random"
	// Oldest: those that were admitted first go first.
	Oldest Pick = "oldest"
	// Idlest: those that read or wrote nothing for the longest time go first, to
	// the second, and the oldest of equals. One that never says when it is active
	// counts from its admission, so among those it is Oldest.
	Idlest Pick = "idlest"
)

// Check reports a pick that is none.
func (p Pick) Check() error {
	switch p {
	case "", Random, Oldest, Idlest:
		return nil
	}
	return fmt.Errorf("order is %q; it must be random, oldest or idlest, or left out for random", string(p))
}
