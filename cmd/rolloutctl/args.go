package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sluice-proxy/sluice/cmd/internal/nearest"
	"github.com/sluice-proxy/sluice/discovery"
)

// one demands exactly one argument and says what it is.
func one(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("%d arguments are given; give one, %s", len(args), what)
		}
		return nil
	}
}

// noArgs is for verbs that say everything with flags.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no argument, but %q is given", cmd.Name(), args[0])
	}
	return nil
}

// maybeService takes at most one argument, the service.
func (c *cli) maybeService(_ *cobra.Command, args []string) error {
	if len(args) > 1 {
		return fmt.Errorf("%d arguments are given; give at most one, a service", len(args))
	}
	return c.named(args)
}

// andService demands one argument, what, and takes the service after it.
func (c *cli) andService(what string, check func(string) error) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < 1:
			return fmt.Errorf("0 arguments are given; give one, %s", what)
		case len(args) > 2:
			return fmt.Errorf("%d arguments are given; give %s, and at most a service after it", len(args), what)
		}
		if err := check(args[0]); err != nil {
			return err
		}
		return c.named(args[1:])
	}
}

// colourAndService is andService for a colour.
func (c *cli) colourAndService(what string) cobra.PositionalArgs {
	return c.andService(what, func(word string) error {
		_, err := discovery.ParseColour(word)
		if err != nil {
			err = fmt.Errorf("%w%s", err, nearest.Ask(word, colours))
		}
		return err
	})
}

// verbsOnly is the root's: an argument there is a verb that it does not have.
func verbsOnly(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var verbs []string
	for _, v := range root.Commands() {
		verbs = append(verbs, v.Name())
	}
	return fmt.Errorf("%q is no verb of rolloutctl%s", args[0], nearest.Ask(args[0], verbs))
}

// flagError says in one sentence what is wrong with a flag.
func flagError(cmd *cobra.Command, err error) error {
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok {
		if short := e.GetSpecifiedShortnames(); short != "" && strings.ContainsRune("0123456789", rune(short[0])) {
			return fmt.Errorf("-%s is negative; nothing here can be", short)
		} else if short != "" {
			return err
		}
		var known []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, "--"+f.Name) })
		slices.Sort(known)
		return fmt.Errorf("%s has no flag --%s%s", cmd.Name(), e.GetSpecifiedName(), nearest.Ask("--"+e.GetSpecifiedName(), known))
	}
	if e, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		if _, number := errors.AsType[*strconv.NumError](err); number {
			what := "a whole number"
			if e.GetFlag().Value.Type() == "bool" {
				what = "true or false"
			}
			return fmt.Errorf("--%s is %q; it must be %s", e.GetFlag().Name, e.GetValue(), what)
		}
	}
	return err
}
