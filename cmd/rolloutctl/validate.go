package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/cmd/internal/config"
	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/discovery/file"
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
			if err := readInstances(loaded); err != nil {
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

// readInstances reads the instances file as rolloutd would, and notes what it would
// leave out. One that is not there is noted by config already.
func readInstances(c *config.Config) error {
	path := c.Discovery.File
	if path == "" {
		return nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return config.Problems{c.At("discovery.file", err.Error())}
	}
	fleets, err := file.Parse(path, data)
	if err != nil {
		return config.Problems{c.At("discovery.file", err.Error())}
	}
	known := map[discovery.Service]bool{}
	for _, s := range c.Services {
		known[s.Name] = true
		if _, ok := fleets[s.Name]; !ok {
			c.Notes = append(c.Notes, c.At("discovery.file", fmt.Sprintf("%s has no service %s", path, s.Name)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fleets)) {
		if !known[name] {
			c.Notes = append(c.Notes, c.At("discovery.file", fmt.Sprintf("%s has a service %s, which the configuration does not", path, name)))
		}
		for _, l := range fleets[name].LeftOut {
			c.Notes = append(c.Notes, c.At("discovery.file", fmt.Sprintf("%s: %s of %s is left out: %s", path, l.ID, name, l.Reason)))
		}
		for _, n := range fleets[name].Notes {
			c.Notes = append(c.Notes, c.At("discovery.file", fmt.Sprintf("%s: %s of %s: %s", path, n.ID, name, n.Text)))
		}
	}
	return nil
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
