package rollout

import "github.com/sluice-proxy/sluice/discovery"

// View is one service as the controller sees it at one moment. Never changed
// once published.
type View struct {
	State  State
	Seen   Seen
	Wish   Wish
	Reason Reason
	// Policy is the configured one, which the next promotion starts from.
	Policy Policy
	// Differences is what Differ found, by member; the controller leaves it empty.
	Differences map[discovery.InstanceID]Difference
}
