// Package policy has the words in which it is said how a service is promoted, their
// defaults and the rules for them. It decides nothing.
package policy

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// Policy is how a service is promoted.
type Policy struct {
	// Funnel is the cap. Default 100 every 1s.
	Funnel units.Funnel `json:"funnel" yaml:"funnel"`
	// Grace is how long connections may end by themselves, once old instances
	// refuse new ones, before the funnel starts. Default 0.
	Grace units.Duration `json:"grace" yaml:"grace"`
	// Canary is the share of new connections that the target gets first, for
	// Soak. 0 is no canary.
	Canary units.Share `json:"canary" yaml:"canary"`
	// Soak is how long the canary share is held before the rest follows.
	Soak units.Duration `json:"soak" yaml:"soak"`
	// ReturnTimeout is how long an evicted client may take to come back before
	// it is counted as never back; the rollout soaks at most that long after
	// the last eviction. Default 1m.
	ReturnTimeout units.Duration `json:"return_timeout" yaml:"return_timeout"`
	// Window is the most evicted clients that may be outstanding at once. Default auto:
	// five caps, or twice as many as are let go while the slowest clients come back.
	// Where nobody tells returning clients, a number is held by an estimate; auto is
	// held by what is certain, so that it binds only when nearly nobody comes back.
	Window units.Window `json:"window,omitempty" yaml:"window"`
	// Capacity is how many connections an instance has room for that declares
	// none itself. 0 is no bound.
	Capacity int `json:"capacity,omitempty" yaml:"capacity"`
	// Headroom is the share of the capacity that may be filled. Default 100%.
	Headroom units.Share `json:"headroom" yaml:"headroom"`
	// Slow is the 99th percentile of handshakes above which the target
	// counts as slow, and the pace is halved. 0 is no bound.
	Slow units.Duration `json:"slow,omitempty" yaml:"slow"`
	// Notice above 0 has clients be asked to come over first, where their instance can ask:
	// each is closed only if it has not gone within it. Default 0: nobody is asked.
	Notice units.Duration `json:"notice,omitempty" yaml:"notice"`
	// Double is the most clients that may be connected on both sides at once: asked, and
	// still there. 0 is no bound.
	Double int `json:"double,omitempty" yaml:"double"`
	// Order is which connections of an instance go first: random (the default),
	// oldest or idlest, where the instance can tell.
	Order contract.Pick `json:"order,omitempty" yaml:"order"`
	// Stagger lets some of the old instances drain at a time.
	Stagger Stagger `json:"stagger,omitzero" yaml:"stagger"`
	// Deadline is how long the whole promotion may take. 0 is no bound.
	Deadline units.Duration `json:"deadline,omitempty" yaml:"deadline"`
	// Pressure is what happens when the deadline is not to be kept: hold (the
	// default) keeps the cap and says so, hurry raises it up to HurryCap.
	Pressure Pressure `json:"pressure,omitempty" yaml:"pressure"`
	// HurryCap is the most connections a step may close when it hurries.
	HurryCap int `json:"hurry_cap,omitempty" yaml:"hurry_cap"`
	// KillAfter is how long after it begins to drain an old instance is ended by
	// somebody else, such as its init system. Consul's meta kill_after comes
	// first. 0 is never.
	KillAfter units.Duration `json:"kill_after,omitempty" yaml:"kill_after"`
	// Gates have to be open before anything moves, before each step and during soaks,
	// or at those of these moments that each names.
	Gates []Gate `json:"gates,omitempty" yaml:"gates"`
	// AbortAfter is how long a gate may be closed before the rollout goes back by
	// itself, at its pace. 0 is never.
	AbortAfter units.Duration `json:"abort_after,omitempty" yaml:"abort_after"`
	// Hook ends old instances that have no drain endpoint, one by one. Nil waits
	// for the operator to end them.
	Hook *Hook `json:"hook,omitempty" yaml:"hook"`
}

// Pressure says what to do about a deadline that is not to be kept.
type Pressure string

const (
	Hold  Pressure = "hold"
	Hurry Pressure = "hurry"
)

// Stagger lets the old instances drain in batches. The zero value lets all drain
// at once.
type Stagger struct {
	// Instances is how many of them, or which share, drain at a time.
	Instances units.Portion `json:"instances,omitzero" yaml:"instances"`
	// Soak is how long to wait between two batches.
	Soak units.Duration `json:"soak,omitempty" yaml:"soak"`
	// First names instances that go first, in this order; the others follow, the
	// smallest first. Default: the smallest first, the largest last.
	First []string `json:"first,omitempty" yaml:"first"`
	// InPlace: there is no second fleet. Old instances whose turn has not come go
	// on serving, and get new connections while the target has no room; the
	// operator replaces emptied ones by instances of the target colour.
	InPlace bool `json:"in_place,omitempty" yaml:"in_place"`
}

// Gate is one condition that has to hold for the rollout to go on. It has exactly
// one of Query, Command and URL.
type Gate struct {
	// Name is unique within the policy.
	Name string `json:"name" yaml:"name"`
	// Query is asked of Prometheus. It is open while every value of the answer is
	// Below and not under Above, whichever are set, and while there is an answer.
	Query string   `json:"query,omitempty" yaml:"query"`
	Below *float64 `json:"below,omitempty" yaml:"below"`
	Above *float64 `json:"above,omitempty" yaml:"above"`
	// Command is open when it exits with 0; its last line of output is shown.
	Command []string `json:"command,omitempty" yaml:"command"`
	// URL is open when a GET answers 2xx.
	URL string `json:"url,omitempty" yaml:"url"`
	// Timeout of one asking. Default 5s.
	Timeout units.Duration `json:"timeout,omitempty" yaml:"timeout"`
	// At is when it has to be open. Default: at every moment.
	At []Moment `json:"at,omitempty" yaml:"at"`
}

// Hook ends one instance: it has exactly one of Command and URL. It is told which
// by environment variables (SLUICE_INSTANCE, SLUICE_ADDRESS, SLUICE_SERVICE,
// SLUICE_COLOUR, SLUICE_ROLLOUT), or by the same as a JSON body of a POST. It may
// be called again for the same instance, so it has to be idempotent.
type Hook struct {
	Command []string `json:"command,omitempty" yaml:"command"`
	URL     string   `json:"url,omitempty" yaml:"url"`
	// Timeout of one call. Default 1m.
	Timeout units.Duration `json:"timeout,omitempty" yaml:"timeout"`
}

// Within is Timeout or its default.
func (g Gate) Within() time.Duration { return cmp.Or(g.Timeout.D(), 5*time.Second) }

// Within is Timeout or its default.
func (h Hook) Within() time.Duration { return cmp.Or(h.Timeout.D(), time.Minute) }

// Default is what a service without a policy gets.
func Default() Policy {
	return Policy{
		Funnel:        units.Funnel{Close: 100, Every: units.Duration(time.Second)},
		ReturnTimeout: units.Duration(time.Minute),
		Headroom:      units.Whole,
	}
}

// longest is the most that a duration of a policy may be: a year.
const longest = 365 * 24 * time.Hour

// Check reports everything that is wrong with the policy: key → sentence.
func (p Policy) Check() map[string]error {
	bad := map[string]error{}
	if err := p.Funnel.Check(); err != nil {
		bad["funnel"] = err
	}
	for key, d := range map[string]units.Duration{
		"grace": p.Grace, "soak": p.Soak, "return_timeout": p.ReturnTimeout, "slow": p.Slow, "deadline": p.Deadline,
		"kill_after": p.KillAfter, "notice": p.Notice, "abort_after": p.AbortAfter, "stagger.soak": p.Stagger.Soak,
	} {
		if d < 0 {
			bad[key] = fmt.Errorf("%s is %s; it must not be negative", key, d)
		} else if d.D() > longest {
			bad[key] = fmt.Errorf("%s is %s; the most is %s", key, d, units.Duration(longest))
		}
	}
	for key, n := range map[string]int{"capacity": p.Capacity, "hurry_cap": p.HurryCap, "double": p.Double} {
		if n < 0 {
			bad[key] = fmt.Errorf("%s is %d; it must be 0 or more, 0 for none", key, n)
		} else if n > contract.MaxConnections {
			bad[key] = fmt.Errorf("%s is %d; the most is %d, and 0 is no bound", key, n, contract.MaxConnections)
		}
	}
	if p.Window < units.NoWindow || p.Window > contract.MaxConnections {
		bad["window"] = fmt.Errorf("window is %d; the most is %d, or auto, or none", int(p.Window), contract.MaxConnections)
	}
	if p.Notice.D() > contract.MaxOver {
		bad["notice"] = fmt.Errorf("notice is %s; the most is %s", p.Notice, units.Duration(contract.MaxOver))
	}
	if p.Double > 0 && p.Notice == 0 {
		bad["double"] = fmt.Errorf("double is %d but nobody is asked, so nobody is connected twice; set notice, such as 30s", p.Double)
	}
	if p.Soak > 0 && p.Canary == 0 {
		bad["soak"] = fmt.Errorf("soak is %s but there is no canary to soak; set canary, such as 5%%", p.Soak)
	}
	if p.Canary >= units.Whole {
		bad["canary"] = fmt.Errorf("canary is %s; leave it out to send everything to the target at once", p.Canary)
	}
	if err := p.Order.Check(); err != nil {
		bad["order"] = err
	}
	switch {
	case p.Pressure != "" && p.Pressure != Hold && p.Pressure != Hurry:
		bad["pressure"] = fmt.Errorf("pressure is %q; it must be hold or hurry", p.Pressure)
	case p.Pressure == Hurry && p.Deadline == 0:
		bad["pressure"] = fmt.Errorf("pressure is hurry but there is no deadline to hurry for; set deadline, such as 30m")
	case p.Pressure == Hurry && p.HurryCap < p.Funnel.Close:
		bad["hurry_cap"] = fmt.Errorf("hurry_cap is %d; to hurry it must be above the %d of the funnel", p.HurryCap, p.Funnel.Close)
	}
	if s := p.Stagger; s.Instances.IsZero() && (s.Soak != 0 || len(s.First) > 0 || s.InPlace) {
		bad["stagger"] = fmt.Errorf("stagger has no instances; say how many drain at a time, such as 1 or 25%%")
	}
	if p.AbortAfter > 0 && len(p.Gates) == 0 {
		bad["abort_after"] = fmt.Errorf("abort_after is %s but there are no gates; add gates, or leave it out", p.AbortAfter)
	}
	if p.Hook != nil {
		if err := p.Hook.check(); err != nil {
			bad["hook"] = err
		}
	}
	names := map[string]bool{}
	for i, g := range p.Gates {
		key := fmt.Sprintf("gates[%d]", i)
		if err := g.check(); err != nil {
			bad[key] = err
		} else if names[g.Name] {
			bad[key] = fmt.Errorf("another gate is called %q too; give each its own name", g.Name)
		}
		names[g.Name] = true
	}
	return bad
}

func (g Gate) check() error {
	ways := 0
	for _, set := range []bool{g.Query != "", len(g.Command) > 0, g.URL != ""} {
		if set {
			ways++
		}
	}
	switch {
	case g.Name == "":
		return fmt.Errorf("the gate has no name; give it one")
	case ways != 1:
		return fmt.Errorf("gate %s must have exactly one of query, command and url", g.Name)
	case g.Query != "" && g.Below == nil && g.Above == nil:
		return fmt.Errorf("gate %s has no bound; set below or above", g.Name)
	case g.Query == "" && (g.Below != nil || g.Above != nil):
		return fmt.Errorf("gate %s has a bound but no query; bounds belong to queries", g.Name)
	case g.Timeout < 0:
		return fmt.Errorf("gate %s has timeout %s; it must not be negative", g.Name, g.Timeout)
	}
	return g.checkMoments()
}

func (h Hook) check() error {
	switch {
	case (len(h.Command) > 0) == (h.URL != ""):
		return fmt.Errorf("hook must have exactly one of command and url")
	case h.Timeout < 0:
		return fmt.Errorf("hook has timeout %s; it must not be negative", h.Timeout)
	}
	return nil
}

// Soaks reports whether a rollout of the policy has a soak in which gates are asked.
func (p Policy) Soaks() bool { return p.Canary > 0 || !p.Stagger.Instances.IsZero() }

// Asked reports whether the gate has to be open at the moment.
func (g Gate) Asked(at Moment) bool {
	return at != "" && (len(g.At) == 0 || slices.Contains(g.At, at))
}

// checkMoments reports a moment that there is not.
func (g Gate) checkMoments() error {
	for i, at := range g.At {
		if !slices.Contains(Moments, at) {
			return fmt.Errorf("gate %s is to be asked at %q; it must be start, step or soak", g.Name, at)
		}
		if slices.Contains(g.At[:i], at) {
			return fmt.Errorf("gate %s has %s twice; remove one", g.Name, at)
		}
	}
	return nil
}

// Moment is when in a rollout a gate is asked. The empty one is never.
type Moment string

const (
	// AtStart: while Opening, before any new connection moves.
	AtStart Moment = "start"
	// AtStep: before each step of the funnel and each call of the hook.
	AtStep Moment = "step"
	// AtSoak: during the canary's soak, and between two batches.
	AtSoak Moment = "soak"
)

// Moments is every moment, in their order.
var Moments = []Moment{AtStart, AtStep, AtSoak}
