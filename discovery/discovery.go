// Package discovery says which instances of which service there are. Its
// adapters (consul, file) turn what they read into a Snapshot; nothing here
// knows about rollouts or proxies.
package discovery

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Service is the name of a service, as Consul or the discovery file spells it.
type Service string

// InstanceID names one instance of a service, unique within the service.
type InstanceID string

// Colour is the side of a service that an instance belongs to. The two colours
// alternate: today's green is the next rollout's old side.
type Colour string

const (
	Blue  Colour = "blue"
	Green Colour = "green"
)

// Colours lists both, in the order in which they are printed and published.
var Colours = [2]Colour{Blue, Green}

// Other returns the opposite colour.
func (c Colour) Other() Colour {
	if c == Blue {
		return Green
	}
	return Blue
}

// ParseColour accepts exactly "blue" and "green".
func ParseColour(s string) (Colour, error) {
	switch c := Colour(s); c {
	case Blue, Green:
		return c, nil
	}
	return "", fmt.Errorf("%q is no colour; use blue or green", s)
}

// Health is what the registry says about an instance.
type Health string

const (
	Passing     Health = "passing"
	Warning     Health = "warning"
	Critical    Health = "critical"
	Maintenance Health = "maintenance"
)

// Serves reports whether an instance of this health takes new connections.
func (h Health) Serves() bool { return h == Passing || h == Warning }

// Instance is one process that serves connections.
type Instance struct {
	ID     InstanceID     `json:"id"`
	Colour Colour         `json:"colour"`
	Addr   netip.AddrPort `json:"addr"`
	Health Health         `json:"health"`
	// Drain is the base URL of its drain endpoint, such as
	// "http://10.0.0.5:9002"; empty when it has none.
	Drain string `json:"drain,omitempty"`
	// Capacity is how many connections it has room for; 0 means not declared.
	Capacity int `json:"capacity,omitempty"`
	// KillAfter is how long after it begins to drain somebody else ends it; 0 means
	// not declared.
	KillAfter time.Duration `json:"kill_after,omitempty"`
	// Version is the release it runs, free text.
	Version string `json:"version,omitempty"`
	// Node is the machine that registered it; empty where the registry has none. Of
	// several nodes each may have an instance of one id: then ID is id@node.
	Node string `json:"node,omitempty"`
}

// Short is its id as its node registered it.
func (i Instance) Short() InstanceID { return ShortOf(i.ID, i.Node) }

// ShortOf is an id without its node.
func ShortOf(id InstanceID, node string) InstanceID {
	return InstanceID(strings.TrimSuffix(string(id), "@"+node))
}

// AtNode is an id with its node.
func AtNode(id InstanceID, node string) InstanceID { return id + InstanceID("@"+node) }

// LeftOut is a registration that is not used, and why in plain words.
type LeftOut struct {
	ID     InstanceID `json:"id"`
	Reason string     `json:"reason"`
}

// Note is something about a used instance that its owner should mend.
type Note struct {
	ID   InstanceID `json:"id"`
	Text string     `json:"text"`
}

// Fleet is everything known about one service. Instances, LeftOut and Notes are
// sorted by ID; IDs in Instances are unique. A Fleet is never changed once
// published.
type Fleet struct {
	Instances []Instance `json:"instances"`
	LeftOut   []LeftOut  `json:"left_out,omitempty"`
	Notes     []Note     `json:"notes,omitempty"`
	// Twins are what FindTwins finds among Instances.
	Twins []Twins `json:"twins,omitempty"`
	// Err says why this is the last good content and not the newest; empty
	// while reads succeed.
	Err string `json:"err,omitempty"`
	// Unread says why nothing was ever read: that Instances is empty proves then
	// nothing. Empty once there was a first answer.
	Unread string `json:"unread,omitempty"`
	// Suspect says which surprising change (a shrink of more than half, or to
	// nothing) has been seen and is not believed yet; Instances still hold what
	// was there before.
	Suspect string `json:"suspect,omitempty"`
}

// Equal reports whether both say the same.
func (f Fleet) Equal(g Fleet) bool {
	return slices.Equal(f.Instances, g.Instances) && slices.Equal(f.LeftOut, g.LeftOut) &&
		slices.Equal(f.Notes, g.Notes) && slices.EqualFunc(f.Twins, g.Twins, equalTwins) && f.Err == g.Err && f.Unread == g.Unread && f.Suspect == g.Suspect
}

// Snapshot is the whole world: every service that was asked for, each read at
// least once or Unread. A Snapshot is never changed once published.
type Snapshot map[Service]Fleet
