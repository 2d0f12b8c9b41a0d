// Package rules says what a Consul agent can be asked for: one rule for the check
// of a configuration and for the adapter that asks.
package rules

import (
	"fmt"
	"strings"
)

// MaxWatches is how many services are watched at one agent: it refuses more than
// 200 connections from one address, and others need some of them too.
const MaxWatches = 150

// CheckWatches refuses more services than can be watched at one agent.
func CheckWatches(services int) error {
	if services > MaxWatches {
		return fmt.Errorf("%d services are more than the %d that one Consul agent can be watched for; split them between two rolloutd with an agent each", services, MaxWatches)
	}
	return nil
}

// CheckName refuses what is no service of Consul's, since it would be asked for
// something else: the name is a segment of a path.
func CheckName(service string) error {
	switch {
	case strings.ContainsAny(service, "/?#"):
		return fmt.Errorf("%q is no service of Consul's; it holds no /, ? or #", service)
	case service == "." || service == "..":
		return fmt.Errorf("%q is no service of Consul's; a path would lose it", service)
	}
	return nil
}
