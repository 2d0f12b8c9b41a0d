package rollout

// View is one service as the controller sees it at one moment. Never changed
// once published.
type View struct {
	State  State
	Seen   Seen
	Wish   Wish
	Reason Reason
	// Policy is the configured one, which the next promotion starts from.
	Policy Policy
}
