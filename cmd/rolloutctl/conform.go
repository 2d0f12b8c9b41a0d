package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/internal/secret"
	"github.com/sluice-proxy/sluice/rollout/drain/conform"
)

// conformity is what -o json prints.
type conformity struct {
	URL        string           `json:"url"`
	Passed     int              `json:"passed"`
	Failed     int              `json:"failed"`
	NotChecked int              `json:"notChecked"`
	Rules      []conform.Result `json:"rules"`
}

func (c *cli) conform() *cobra.Command {
	var o conform.Options
	var tokenFile string
	cmd := &cobra.Command{
		Use:   "conform URL",
		Short: "Check an implementation of the drain contract, rule by rule; asks no rolloutd",
		Long: `Check an implementation of the drain contract, rule by rule; asks no rolloutd.

URL is the drain endpoint of one instance. With --connect its connections are checked
as well, which takes about 25 s. Take an instance that serves and has no clients, best
before it is registered. It serves at the end.`,
		Example: "  rolloutctl conform http://127.0.0.1:9101 --connect ws://127.0.0.1:9001/ws",
		Args:    one("the address of the drain endpoint"),
	}
	cmd.Flags().StringVar(&o.Token, "token", "", "`TOKEN` of the drain endpoint")
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "`FILE` that holds the token of the drain endpoint")
	cmd.Flags().StringVar(&o.Connect, "connect", "", "`URL` where the instance itself takes connections: ws://HOST:PORT/PATH, tcp://HOST:PORT or grpc://HOST:PORT/PACKAGE.SERVICE/METHOD")
	cmd.Flags().IntVar(&o.Connections, "connections", 20, "`NUMBER` of connections to open, at least 8")
	cmd.Flags().BoolVar(&o.Force, "force", false, "also an instance that drains or holds connections, which are left alone; it serves at the end")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.URL = args[0]
		if err := o.Check(); err != nil {
			return &usageError{err.Error()}
		}
		if tokenFile != "" {
			var err error
			if o.Token, err = secret.File(tokenFile); err != nil {
				return fmt.Errorf("--token-file: %w", err)
			}
		} else if o.Token != "" && !secret.Word(o.Token) {
			return usagef("--token holds more than one word of plain characters; give the token alone")
		}
		out := conformity{URL: o.URL, Rules: []conform.Result{}}
		var broken []string
		err := conform.Run(cmd.Context(), o, func(r conform.Result) {
			out.Rules = append(out.Rules, r)
			word, text := string(r.Verdict), r.Why
			switch r.Verdict {
			case conform.Pass:
				out.Passed++
				text = r.Says
			case conform.Fail:
				out.Failed++
				broken = append(broken, r.Rule)
				word, text = "FAIL", r.Why+"; the rule: "+r.Says
			default:
				out.NotChecked++
			}
			if !c.json() {
				_ = c.printf("%-12s %-16s %s\n", word, r.Rule, clean(text))
				if r.Mend != "" {
					_ = c.printf("%-12s %-16s %s\n", "", "  to mend it:", r.Mend)
				}
			}
		})
		if err != nil {
			return err
		}
		if c.json() {
			err = c.printJSON(out)
		} else {
			err = c.printf("%s: %d passed, %d failed, %d not checked\n", count(len(out.Rules), "rule"), out.Passed, out.Failed, out.NotChecked)
		}
		if err == nil && len(broken) > 0 {
			err = fmt.Errorf("%s breaks %s of the drain contract: %s", o.URL, count(len(broken), "rule"), strings.Join(broken, ", "))
		}
		return err
	}
	return cmd
}
