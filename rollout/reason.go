package rollout

import "fmt"

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
	TargetSick     Code = "target_sick"     // the side that takes over is unhealthy
	Unconfirmed    Code = "unconfirmed"     // proxies have not acknowledged
	Nacked         Code = "nacked"          // a proxy refused
	Unpublished    Code = "unpublished"     // the guard refused
	Settling       Code = "settling"        // handshakes under way when the last proxy confirmed
	GateOpen       Code = "gate_open"       // an old instance still takes new connections
	InGrace        Code = "grace"           // natural closes only
	NoRoom         Code = "no_room"         // the side that takes over is full
	Unreachable    Code = "unreachable"     // only instances that do not answer are left
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
)

func reason(c Code, format string, args ...any) Reason {
	return Reason{Code: c, Text: fmt.Sprintf(format, args...)}
}
