package main

import (
	"github.com/sluice-proxy/sluice/cmd/internal/config"
	"github.com/sluice-proxy/sluice/envoy"
)

// load reads and checks a configuration as rolloutctl validate does, and own filters by Envoy's
// protos, which rolloutctl does not bring.
func load(path string) (*config.Config, error) {
	c, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	var problems config.Problems
	for _, f := range envoy.Faults(c.Edge()) {
		problems = append(problems, c.Problem(f))
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return c, nil
}
