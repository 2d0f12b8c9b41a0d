package rollout

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"syscall"
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

// Sighting is what is known of one drain endpoint.
type Sighting struct {
	// Status is the last answer, got at At. At is zero before the first answer.
	Status drain.Status
	At     time.Time
	// PerSecond is the rate of admitted connections between the last two answers.
	PerSecond float64
	// Since is when the process that answers was first heard, ReturnedAt when it last
	// was seen to have admitted a returning client; zero is never.
	Since, ReturnedAt time.Time
	// ReturnedPerSecond is the rate of returning clients between the last two answers.
	ReturnedPerSecond float64
	// Err says why the newest request had no answer; empty when it had one.
	Err string
	// ErrAt is when the newest failed request ended, FailingSince when the first
	// of an unbroken row of failures did; zero while it answers.
	ErrAt, FailingSince time.Time
	// Refused: every failure of that row was a refused connection, as of a
	// process that no longer exists.
	Refused bool
	// Failures is how many requests that row has, and Contradicts how many of the newest
	// were answered by what contradicts Status.
	Failures, Contradicts int
	// EmptySince is when it began to say that it holds nothing, of an unbroken row of
	// answers; zero while it holds some.
	EmptySince time.Time
	// Former is the processes that answered before the one of Status, oldest first; at
	// most formersKept. Never changed once made.
	Former []Life
	// Peers is whom it hears of.
	Peers Peers
	// PeerRefusals is whom it refused lately.
	PeerRefusals PeerRefusals
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

// Decision is what Step chose. Next must be stored before it has any effect.
type Decision struct {
	Next State
	// Changed: Next differs from the state that was given.
	Changed bool
	Reason  Reason
	// Ask names members whose drain endpoint must be asked now: the next step
	// waits for fresh counts.
	Ask []discovery.InstanceID
	// AskGates: the gates of this moment must be asked now.
	AskGates Moment
	// Wake is when to decide again if nothing else happens; zero: no need.
	Wake time.Time
}

// After is the sighting once a request was answered by status, or failed with err,
// at now. An answer that contradicts the one before counts as a failure, until the
// instance has insisted on it: it knows better than anybody, and more is the safer side.
func (s Sighting) After(status drain.Status, err error, now time.Time) Sighting {
	last := s
	if err == nil && !last.At.IsZero() {
		if err = contradiction(last.Status, status); last.Contradicts >= insists {
			err = nil
		}
	}
	if err == nil {
		s.Err, s.FailingSince, s.Refused, s.Failures, s.Contradicts = "", time.Time{}, false, 0, 0
		if status.Active > 0 {
			s.EmptySince = time.Time{}
		} else if s.EmptySince.IsZero() {
			s.EmptySince = now
		}
		if same := last.At.IsZero() || sameProcess(last.Status, status); !same {
			s.Former = append(slices.Clip(last.Former[max(0, len(last.Former)+1-formersKept):]), Life{last.Status, last.At})
		} else if gap := now.Sub(last.At).Seconds(); !last.At.IsZero() && gap > 0.05 {
			s.PerSecond = float64(status.Accepted-last.Status.Accepted) / gap
		}
		s.returning(last, status, now)
		same := !last.At.IsZero() && sameProcess(last.Status, status)
		s.Peers, s.PeerRefusals = last.Peers.after(last.Status, status, same, now), last.PeerRefusals.after(last.Status, status, same, last.At, now)
		s.Status, s.At = status, now
		return s
	}
	if s.Contradicts = 0; errors.As(err, new(contradicting)) {
		s.Contradicts = last.Contradicts + 1
	}
	refused := errors.Is(err, syscall.ECONNREFUSED)
	if last.Err == "" {
		s.FailingSince, s.Refused = now, refused
	} else if refused && !last.Refused {
		s.FailingSince, s.Refused = now, true
	} else {
		s.Refused = refused
	}
	s.Err, s.ErrAt, s.Failures = err.Error(), now, last.Failures+1
	return s
}

// returning follows how many returning clients come: last is the sighting before this
// answer.
func (s *Sighting) returning(last Sighting, status drain.Status, now time.Time) {
	was, is := totals(last.Status).Returned, totals(status).Returned
	if last.At.IsZero() || !sameProcess(last.Status, status) {
		s.Since, s.ReturnedPerSecond = now, 0
		return
	}
	if is > was {
		s.ReturnedAt = now
	}
	if gap := now.Sub(last.At).Seconds(); gap > 0.05 && is >= was {
		s.ReturnedPerSecond = float64(is-was) / gap
	}
}

// Differs reports whether the sighting next says more than new counts.
func (s Sighting) Differs(next Sighting) bool {
	a, b := s.Status, next.Status
	return a.Boot != b.Boot || a.State != b.State || a.Rollout != b.Rollout || a.Epoch != b.Epoch || a.Step != b.Step ||
		(s.Err == "") != (next.Err == "") || s.Refused != next.Refused || s.Failures < silentAfter && next.Failures >= silentAfter
}

// contradiction reports that an instance says what cannot be so: that it holds more
// than before although it refuses, and admitted none in between.
func contradiction(before, now drain.Status) error {
	same := before.Boot == now.Boot && before.State != drain.Serving && before.Rollout == now.Rollout && before.Epoch == now.Epoch && before.Accepted == now.Accepted
	if same && now.Active > before.Active {
		return contradicting(fmt.Sprintf("its answers contradict each other: it holds %d connections after %d and admitted none in between; mend its drain endpoint", now.Active, before.Active))
	}
	if sameProcess(before, now) {
		return impossible(before, now)
	}
	return nil
}

// contradicting is an answer that cannot be so after the one before.
type contradicting string

func (c contradicting) Error() string { return string(c) }

// insists is how many such answers in a row are not believed.
const insists = 4

// View is one service as the controller sees it at one moment. Never changed
// once published.
type View struct {
	State  State
	Seen   Seen
	Wish   Wish
	Reason Reason
	// Policy is the configured one, which the next promotion starts from.
	Policy Policy
	// Differences is what control.Differ found, by member; the controller leaves it empty.
	Differences map[discovery.InstanceID]Difference
}

// Difference is a lasting one between what an instance says that it holds and
// what the proxies report of it, as of clients that reach it past the proxies.
type Difference struct {
	Said, Reported int
	// Since is when it was first seen.
	Since time.Time
}

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

// ShownBy reports whether an instance of this status follows the instruction. A
// release is needed only by an instance that an order closed. One that closed its
// gate by itself is stopping.
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
