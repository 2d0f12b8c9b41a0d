// Package observed has the words for what is observed of one service, and judges each
// answer of an instance by the one before: what an instance says is its word, and no more.
package observed

import (
	"net/netip"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
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
	// Loads is what the proxies report of each endpoint; one that is missing was
	// never reported, which proves nothing.
	Loads map[Place]Load
	// Witnesses is what the proxies' own counters say a colour holds in all. A colour
	// without one has no proxy that could hold a connection, or rolloutd has just
	// started and they may not have found it yet: nothing is proven.
	Witnesses map[discovery.Colour]Witness
	// Gates is the newest reading of each gate of the policy, by name.
	Gates map[string]Reading
	// Hooks is how the policy's hook fares with a member.
	Hooks map[discovery.InstanceID]HookRun
}

// Place is one endpoint of a service, as the proxies know it.
type Place struct {
	Colour discovery.Colour
	Addr   netip.AddrPort
}

// Load is what the proxies report of one endpoint: the sum of each proxy's newest
// report. A proxy that stopped reporting counts with its last report. It proves
// nothing: a proxy leaves out an endpoint that has nothing, and also one that was
// removed while it has connections.
type Load struct {
	// Held is how many connections (requests in progress) it has. An endpoint that a
	// proxy leaves out keeps its last count until the proxy's counters show nothing
	// beyond what it reports.
	Held int
	// Admissions count, since this process started, the connections
	// that were sent there and those that it answered with an error or refused; they
	// never fall. What came before a proxy's first report is not among them.
	Admissions
	// PerSecond is the rate of Accepted between the last two reports.
	PerSecond float64
	// At is the oldest of the proxies' newest reports.
	At time.Time
	// Silent names the proxies that reported the endpoint and no longer do, without
	// their counters having shown that they hold nothing of it.
	Silent []string
}

// Witness is the sum of the proxies' counters of one colour. Unlike loads they
// stay right whatever happens to endpoints, so 0 is proof of empty.
type Witness struct {
	// Active counts proxies that no longer answer with their last answer.
	Active int
	// Reported is the sum of the newest load reports of the colour, of the proxies that
	// report: a second witness. Where it says that something is held, Active of 0 is no
	// proof.
	Reported int
	// At is the oldest of the newest answers of those that answer; they are at most
	// two seconds old. Zero: none does.
	At time.Time
	// Missing names proxies that may hold connections and do not say: every one that
	// was connected within a day, or ever answered. While there are any, nothing is
	// proven. One that is known from the state only is not among them.
	Missing []string
	// ConnectP99 is the 99th percentile of the time that connecting to an
	// instance took lately, the slowest proxy's; 0 when not known.
	ConnectP99 time.Duration
	// Refused is how many connections instances or circuit breakers refused since this
	// process started: connects that failed, overflows, and 503. Other answers are not
	// among them.
	Refused uint64
}

// Reading is one answer of a gate.
type Reading struct {
	Open bool
	// Unanswered: the gate gave no usable answer; it is then not Open.
	Unanswered bool
	// Text says what was seen, or why there is no answer, in plain words.
	Text string
	// At is when the gate was asked: an answer counts for what begins later.
	At time.Time
}

// HookRun is one call of the hook for a member.
type HookRun struct {
	// Rollout and Attempt say which order the call carries out.
	Rollout string
	Attempt int
	// Done: it ended at At; Err says why it failed, empty when it did not.
	Done bool
	Err  string
	At   time.Time
}

// Proxy is one Envoy as seen from one service.
type Proxy struct {
	Node string
	// Addr is its machine, as the server sees it; the zero value is not known.
	Addr      netip.Addr
	Connected bool
	// Routes: it asks for, or holds, what routes to the service: its listener, its
	// routes or its clusters. Nobody waits for one that does not.
	Routes bool
	// Lost is when a proxy that is not connected went away.
	Lost time.Time
	// Ended: it was restarted hot, and the process after it says that nothing of it is left.
	Ended bool
	// Confirmed: it acknowledged exactly what is published for the service.
	Confirmed bool
	// Routed: it acknowledged the colours' shares of new connections that are published,
	// or had when it was lost, and they have not changed since. Confirmed means that, too.
	Routed bool
	// Keeps: it holds something of the service that this process has not told it.
	Keeps bool
	// Nack is why it refused the newest publish; empty when it did not.
	Nack string
}
