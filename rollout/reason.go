package rollout

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
)

// Code names a Reason or a Refusal for machines: metrics, JSON, tests.
type Code string

// Reason says why a decision is what it is. Text is one plain sentence and
// appears verbatim in log, metric, status and CLI.
type Reason struct {
	Code Code   `json:"code"`
	Text string `json:"text"`
}

// Waiting reports whether the rollout would go on if this were not so.
func (r Reason) Waiting() bool {
	switch r.Code {
	case IsSteady, IsShifting, IsAborting, IsDraining, IsSoaking, IsRetired, FreshCounts, FreshGates:
		return false
	}
	return true
}

// Codes of reasons. Those that begin with Is say what is going on; the others,
// what is waited for.
const (
	IsSteady   Code = "steady"
	IsShifting Code = "shifting"
	IsDraining Code = "draining"
	IsSoaking  Code = "soaking"
	IsRetired  Code = "retired"
	IsAborting Code = "aborting"

	Paused         Code = "paused"
	NoHealthyLive  Code = "no_healthy_live"
	TargetClosed   Code = "target_closed"   // target instances do not serve yet
	TargetSick     Code = "target_sick"     // the target is unhealthy
	Unconfirmed    Code = "unconfirmed"     // proxies have not acknowledged
	NoProxy        Code = "no_proxy"        // no proxy is connected, so none can confirm
	TurnedAway     Code = "turned_away"     // the draining side still refuses new clients
	Nacked         Code = "nacked"          // a proxy refused
	Unpublished    Code = "unpublished"     // the guard refused
	Settling       Code = "settling"        // handshakes under way when the last proxy confirmed
	GateOpen       Code = "gate_open"       // an old instance still takes new connections
	InGrace        Code = "grace"           // natural closes only
	NoRoom         Code = "no_room"         // the target is full
	Unreachable    Code = "unreachable"     // only instances that do not answer are left
	Contradicted   Code = "contradicted"    // an instance and the proxies say different things of what it holds
	Ending         Code = "ending"          // what was let go, or is short, has not ended
	NoEndpoint     Code = "no_endpoint"     // only instances without a drain endpoint are left
	StaleDiscovery Code = "stale_discovery" // the registry cannot be read or is not believed
	FreshCounts    Code = "fresh_counts"    // asking how many connections are held now
	FreshGates     Code = "fresh_gates"     // asking the gates
	GateClosed     Code = "gate_closed"     // a gate of the policy is closed or does not answer
	WindowFull     Code = "window_full"     // as many clients are on their way as the window allows
	Learning       Code = "learning"        // how fast clients come back is not known yet
	NotReturning   Code = "not_returning"   // evicted clients do not come back
	BatchSoak      Code = "batch_soak"      // between two batches
	HookRunning    Code = "hook_running"    // the hook ends an instance
	HookFailed     Code = "hook_failed"     // the hook did not end it
	HookTooLarge   Code = "hook_too_large"  // an instance holds more than a hook may end at once
	Unreported     Code = "unreported"      // the proxies do not report what instances hold
	StoreFailing   Code = "store_failing"   // the next state cannot be remembered
	Twins          Code = "twins"           // two registrations are one process, in two colours
	Recoloured     Code = "recoloured"      // the registry calls a target instance the other colour
	HeldOpen       Code = "held_open"       // the live instances are not vouched for, and serve
	Unread         Code = "unread"          // the registry was never read, and nothing is stored
	Unsettled      Code = "unsettled"       // nothing is stored, and which colour is live is not proven
)

func reason(c Code, format string, args ...any) Reason {
	return Reason{Code: c, Text: fmt.Sprintf(format, args...)}
}

// blocker is why a rollout does not go on. Until is when it ends by itself; zero
// when nobody knows.
type blocker struct {
	Reason
	Until time.Time
}

func blocked(c Code, format string, args ...any) *blocker {
	return &blocker{Reason: reason(c, format, args...)}
}

func blockedUntil(end time.Time, c Code, format string, args ...any) *blocker {
	return &blocker{Reason: reason(c, format, args...), Until: end}
}

// What reasons are written with.

// clock prints a time of day in UTC.
func clock(t time.Time) string { return t.UTC().Format("15:04:05 MST") }

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// names lists the first three.
func names(all []string) string {
	if len(all) <= 3 {
		return strings.Join(all, ", ")
	}
	return strings.Join(all[:3], ", ") + fmt.Sprintf(" and %d more", len(all)-3)
}

func keys(of []*fact) string {
	out := make([]string, len(of))
	for i, f := range of {
		out[i] = string(f.key)
	}
	return names(out)
}

// Refusal is the error of a command that was refused: nothing was changed. Code
// is for machines, Text is one sentence with the reason and the way out.
type Refusal struct {
	Code Code
	Text string
}

func (r *Refusal) Error() string { return r.Text }

// Codes of refusals.
const (
	UnknownService Code = "unknown_service"
	NotReady       Code = "not_ready"   // discovery or state not read yet
	InProgress     Code = "in_progress" // a rollout is under way
	NoRollout      Code = "no_rollout"  // there is none
	NoTarget       Code = "no_target"   // the target has no healthy instance
	Infeasible     Code = "infeasible"  // the plan has problems; --force overrides
	BadRequest     Code = "bad_request" // the request itself is wrong
	NotStored      Code = "not_stored"  // the state could not be stored
	NotSettled     Code = "not_settled" // nothing is stored, and which colour is live is not proven
	Settled        Code = "settled"     // it is known which colour is live
	UnknownProxy   Code = "unknown_proxy"
	ProxyConnected Code = "proxy_connected" // it is not gone
)

func refuse(c Code, format string, args ...any) *Refusal {
	return &Refusal{Code: c, Text: fmt.Sprintf(format, args...)}
}

// StorePatience bounds one request to the store, and how long an operator's command
// waits for it.
const StorePatience = 3 * time.Second

// errNoAnswer: the store may have stored the state or not.
var errNoAnswer = fmt.Errorf("the store gave no answer within %s", StorePatience)

// Unstored says that a state could not be stored, and why.
func Unstored(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		err = errNoAnswer
	}
	return fmt.Errorf("the next state cannot be stored: %w", err)
}

// RefuseUnstored is the answer to a command whose state could not be stored.
func RefuseUnstored(service discovery.Service, err error) *Refusal {
	if errors.Is(err, errNoAnswer) {
		return refuse(NotStored, "%s: it is not known whether it will be done: %v; mend the store, and look at the status before trying again", service, err)
	}
	return refuse(NotStored, "%s: nothing was changed: %v; mend the store and try again", service, err)
}

// unchecked is a decision or an answer that no state may have.
func unchecked(err error) error { return fmt.Errorf("a decision was refused: %w", err) }
