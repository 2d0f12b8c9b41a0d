package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/cmd/internal/config"
)

// verdict is what -o json prints of a configuration.
type verdict struct {
	Valid    bool      `json:"valid"`
	Problems []problem `json:"problems"`
	Notes    []problem `json:"notes"`
	// Unchecked is what only a network could tell.
	Unchecked []problem `json:"unchecked"`
}

type problem struct {
	File string `json:"file"`
	Line int    `json:"line,omitempty"`
	Key  string `json:"key,omitempty"`
	Text string `json:"text"`
}

func (c *cli) validate() *cobra.Command {
	return &cobra.Command{
		Use:   "validate FILE",
		Short: "Check a configuration of rolloutd; asks no server",
		Args:  one("the configuration file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			loaded, err := config.Load(args[0])
			if err != nil {
				return c.invalid(args[0], err)
			}
			if c.json() {
				return c.printJSON(verdict{Valid: true, Problems: []problem{}, Notes: problems(loaded.Notes), Unchecked: problems(loaded.Unchecked())})
			}
			for _, n := range loaded.Notes {
				if err := c.printf("note: %s\n", n); err != nil {
					return err
				}
			}
			for _, n := range loaded.Unchecked() {
				if err := c.printf("%s\n", n); err != nil {
					return err
				}
			}
			return c.printf("%s is valid: %s, %s\n", args[0], count(len(loaded.Listeners), "listener"), count(len(loaded.Services), "service"))
		},
	}
}

// invalid prints every problem and returns how many there are.
func (c *cli) invalid(file string, err error) error {
	all, ok := errors.AsType[config.Problems](err)
	if !ok {
		return err
	}
	if c.json() {
		if err := c.printJSON(verdict{Problems: problems(all), Notes: []problem{}, Unchecked: []problem{}}); err != nil {
			return err
		}
	} else {
		for _, p := range all {
			if _, err := fmt.Fprintln(c.err, p); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("%s is not valid: %s", file, count(len(all), "problem"))
}

func problems(all config.Problems) []problem {
	out := []problem{}
	for _, p := range all {
		out = append(out, problem(p))
	}
	return out
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
