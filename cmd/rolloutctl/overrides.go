package main

import (
	"encoding"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// overrides are the flags that change the policy for one promotion.
type overrides struct {
	flags                 *pflag.FlagSet
	close                 int
	window                units.Window
	every, grace, soak    units.Duration
	staggerSoak, deadline units.Duration
	canary                units.Share
	stagger               units.Portion
}

func addOverrides(cmd *cobra.Command) *overrides {
	o := &overrides{flags: cmd.Flags()}
	o.flags.IntVar(&o.close, "close", 0, "most `CONNECTIONS` to close per step, fleet-wide")
	o.flags.Var(text{&o.every}, "every", "`DURATION` of a step, such as 3s")
	o.flags.Var(text{&o.grace}, "grace", "`DURATION` for connections to end by themselves before the funnel starts")
	o.flags.Var(text{&o.canary}, "canary", "`SHARE` of new connections that the target gets first, such as 5%")
	o.flags.Var(text{&o.soak}, "soak", "`DURATION` for which the canary share is held")
	o.flags.Var(text{&o.window}, "window", "most evicted `CLIENTS` that may be on their way at once, such as 3000; auto, or none for no bound")
	o.flags.Var(text{&o.stagger}, "stagger", "how many old `INSTANCES` drain at a time, such as 1 or 25%; 0 is all")
	o.flags.Var(text{&o.staggerSoak}, "stagger-soak", "`DURATION` to wait between two batches of instances")
	o.flags.Var(text{&o.deadline}, "deadline", "`DURATION` that the whole promotion may take")
	return o
}

// given returns what was set on the command line.
func (o *overrides) given() policy.Overrides {
	return policy.Overrides{
		Close: given(o, "close", &o.close), Every: given(o, "every", &o.every), Grace: given(o, "grace", &o.grace),
		Canary: given(o, "canary", &o.canary), Soak: given(o, "soak", &o.soak),
		Window: given(o, "window", &o.window), Stagger: given(o, "stagger", &o.stagger), StaggerSoak: given(o, "stagger-soak", &o.staggerSoak),
		Deadline: given(o, "deadline", &o.deadline),
	}
}

func given[T any](o *overrides, name string, v *T) *T {
	if !o.flags.Changed(name) {
		return nil
	}
	return v
}

// text is a flag whose value knows its own text form.
type text struct{ encoding.TextUnmarshaler }

func (t text) Set(s string) error { return t.UnmarshalText([]byte(s)) }
func (t text) Type() string       { return "text" }
func (t text) String() string     { return "" }
