// Package level is how a loop is told to look again.
package level

// Level is set while there is something that its loop has not looked at yet. Setting
// it never blocks and never queues: however often it was set, one receive takes it
// back, and the loop looks at everything then. It has one receiver and comes from New.
type Level chan struct{}

// New returns a Level that is not set.
func New() Level { return make(Level, 1) }

// Set sets it; it may be called concurrently.
func (l Level) Set() {
	select {
	case l <- struct{}{}:
	default:
	}
}
