package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
)

// checked is what -o json prints.
type checked struct {
	// Ready: nothing is wrong, and nothing is unknown.
	Ready  bool      `json:"ready"`
	Checks []finding `json:"checks"`
}

func (c *cli) check() *cobra.Command {
	return &cobra.Command{
		Use:   "check [SERVICE]",
		Short: "Look at everything that a promotion needs, before the first one; changes nothing",
		Long: `Look at everything that a promotion needs, before the first one; changes nothing.

It asks rolloutd: whether discovery can be read and the token may see the services, each
Envoy's version and bootstrap, each drain endpoint, the gates, capacity, clocks, and the plan
of the next promotion. What is wrong, and what is not known yet, make it exit 1.`,
		Args: c.maybeService, ValidArgsFunction: c.words(c.knownServices),
		RunE: func(cmd *cobra.Command, args []string) error {
			found, err := c.preflight(cmd.Context())
			if err != nil {
				return err
			}
			out := checked{Checks: found}
			bad := 0
			for _, f := range found {
				if f.Verdict == wrong || f.Verdict == unknown {
					bad++
				}
			}
			out.Ready = bad == 0
			if c.json() {
				err = c.printJSON(out)
			} else {
				var b bytes.Buffer
				for _, f := range found {
					fmt.Fprintf(&b, "%-8s %s: %s\n", f.Verdict, clean(f.About), clean(f.Text))
				}
				_, err = c.out.Write(b.Bytes())
			}
			if err == nil && bad > 0 {
				err = fmt.Errorf("not ready for a promotion: %s", count(bad, "finding"))
			}
			return err
		},
	}
}

// preflight asks for everything and judges it. The error says that nothing could be
// asked; what is refused is a finding.
func (c *cli) preflight(ctx context.Context) ([]finding, error) {
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	version, err := client.Version(ctx)
	if err != nil {
		return nil, err
	}
	found := []finding{skew(version.Version)}
	before := time.Now()
	world, err := client.Status(ctx)
	if r, refused := errors.AsType[*rollout.Refusal](err); refused {
		return append(found, finding{wrong, "discovery", r.Text}), nil
	} else if err != nil {
		return nil, err
	}
	found = append(found, clocks(world.At, before, time.Now()))
	proxies, err := client.Proxies(ctx)
	if err != nil {
		return nil, err
	}
	found = append(found, envoys(proxies)...)
	seen := false
	for _, s := range world.Services {
		if c.service != "" && c.service != string(s.Service) {
			continue
		}
		seen = true
		found = append(found, service(s)...)
		target := s.Live.Other()
		if s.Rollout != nil {
			target = s.Rollout.To
		}
		if s.Live == "" {
			continue // without it there is nothing to plan; service has said so
		}
		plan, err := client.Plan(ctx, s.Service, api.Promotion{Target: string(target)})
		if r, refused := errors.AsType[*rollout.Refusal](err); refused {
			found = append(found, finding{wrong, ofService(s.Service, "plan"), r.Text})
			continue
		} else if err != nil {
			return nil, err
		}
		found = append(found, planned(s, plan)...)
	}
	if !seen && c.service != "" {
		return nil, &rollout.Refusal{Code: rollout.UnknownService, Text: fmt.Sprintf("no service is called %q; rolloutctl status lists them", c.service)}
	} else if !seen {
		found = append(found, finding{wrong, "services", noService})
	}
	return found, nil
}

func ofService(s discovery.Service, what string) string { return string(s) + " " + what }
