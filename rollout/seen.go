package rollout

import (
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/drain"
)

// Seen is everything observed about one service at one moment. Step reads it and
// nothing else of the world.
type Seen struct {
	Fleet discovery.Fleet
	// Instances is what the drain endpoints last said, by member.
	Instances map[discovery.InstanceID]Sighting
	// Proxies is every proxy that is connected or was since this process started.
	Proxies []Proxy
	// Watching is since when this process listens for proxies: one that is known
	// from the state but was not seen yet is given time from then on.
	Watching time.Time
	// Unpublished says why the proxies have not been sent what the state wishes;
	// empty when they have.
	Unpublished string
}

// Sighting is what is known of one drain endpoint.
type Sighting struct {
	// Status is the last answer, got at At. At is zero before the first answer.
	Status drain.Status
	At     time.Time
	// PerSecond is the rate of admitted connections between the last two answers.
	PerSecond float64
	// Err says why the newest request had no answer; empty when it had one.
	Err string
	// ErrAt is when the newest failed request ended, FailingSince when the first
	// of an unbroken row of failures did; zero while it answers.
	ErrAt, FailingSince time.Time
	// Refused: every failure of that row was a refused connection, as of a
	// process that no longer exists.
	Refused bool
}

// Proxy is one Envoy as seen from one service.
type Proxy struct {
	Node      string
	Connected bool
	// Lost is when a proxy that is not connected went away.
	Lost time.Time
	// Confirmed: it acknowledged exactly what is published for the service.
	Confirmed bool
	// Nack is why it refused the newest publish; empty when it did not.
	Nack string
}

// Decision is what Step chose. Next must be stored before it has any effect.
type Decision struct {
	Next State
	// Changed: Next differs from the state that was given.
	Changed bool
	Reason  Reason
	// Ask names members whose drain endpoint must be asked now: the next step
	// waits for fresh counts.
	Ask []discovery.InstanceID
	// Wake is when to decide again if nothing else happens; zero: no need.
	Wake time.Time
}
