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
	case IsSteady, IsShifting, IsDraining, IsSoaking, IsRetired, FreshCounts:
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
	StoreFailing   Code = "store_failing"   // the next state cannot be remembered
)

func reason(c Code, format string, args ...any) Reason {
	return Reason{Code: c, Text: fmt.Sprintf(format, args...)}
}
