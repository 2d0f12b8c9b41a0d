package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/rollout/api"
)

func (c *cli) proxies() *cobra.Command {
	list := &cobra.Command{
		Use:   "proxies",
		Short: "List the Envoys, what they acknowledged and what they refused",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			all, err := client.Proxies(cmd.Context())
			switch {
			case err != nil:
				return err
			case c.json():
				return c.printJSON(all)
			case len(all) == 0:
				return c.printf("no proxy has connected yet; rolloutctl bootstrap --node NAME prints what an Envoy needs\n")
			}
			return c.printProxies(all, time.Now())
		},
	}
	list.AddCommand(c.forget())
	return list
}

func (c *cli) printProxies(all []api.Proxy, now time.Time) error {
	var b bytes.Buffer
	rows := [][]string{{"PROXY", "STATE", "SINCE", "ADDRESS", "AGENT", "HOLDS", "REFUSED", "WITHHELD", "REPORTS"}}
	for _, p := range all {
		state := "lost"
		if p.Connected {
			state = "connected"
		}
		if p.Foreign {
			state += ", routes nothing"
		}
		var holds []string
		for _, h := range p.Holds {
			holds = append(holds, fmt.Sprintf("%d %s", h.Resources, h.Type))
		}
		rows = append(rows, []string{p.Node, state, moment(p.Since, now), p.Address, p.UserAgent, strings.Join(holds, ", "),
			fmt.Sprint(p.NackCount), fmt.Sprint(len(p.Withheld)), reports(p.Reports)})
	}
	_ = table(&b, rows) // a buffer takes everything
	for _, p := range all {
		if len(p.Twins) > 0 && p.Node < slices.Min(p.Twins) {
			fmt.Fprintf(&b, "%s share one node id: several Envoys with a copied bootstrap, or one that is restarted hot; give each Envoy its own (bootstrap --node)\n",
				clean(strings.Join(append([]string{p.Node}, p.Twins...), ", ")))
		}
		if p.Contested {
			fmt.Fprintf(&b, "%s is spoken for by two connections; within 10 s it is known whether they are two Envoys with one node id\n", clean(p.Node))
		}
		for _, n := range p.Nacks {
			fmt.Fprintf(&b, "%s refused %s at %s: %s\n", clean(p.Node), clean(strings.TrimSpace(n.Type+" "+strings.Join(n.Names, ", "))), moment(n.At, now), clean(n.Message))
		}
		for _, w := range p.Withheld {
			fmt.Fprintf(&b, "%s is not sent %s: %s\n", clean(p.Node), clean(w.Ref), clean(w.Why))
		}
		if p.Reports.Partial {
			fmt.Fprintf(&b, "%s sends no server.parent_connections: a colour that it never used is not known to be empty there; make its bootstrap anew, or let its stats_matcher include server.\n", clean(p.Node))
		}
		if r := p.Reports; r.Refused > 0 {
			fmt.Fprintf(&b, "%s sent %d reports that are not believed, the newest: %s\n", clean(p.Node), r.Refused, clean(r.Trouble))
		}
		if r := p.Reports; len(r.Ignored) > 0 {
			fmt.Fprintf(&b, "%s reports clusters that were never published: %s\n", clean(p.Node), clean(strings.Join(r.Ignored, ", ")))
		}
	}
	_, err := c.out.Write(b.Bytes())
	return err
}

// reports is one word for how the proxy's reports come.
func reports(r api.Reporting) string {
	switch {
	case r.Silent:
		return "silent"
	case r.Loads == nil && r.Counters == nil:
		return "none"
	case r.Counters == nil:
		return "loads only"
	case r.Loads == nil:
		return "counters only"
	}
	return "all"
}
