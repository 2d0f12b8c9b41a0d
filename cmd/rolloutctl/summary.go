package main

import (
	"context"
	"errors"
	"fmt"
	"html"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// summarize appends to the summary's file how the rollout ended, or how far it is
// where nobody waits for it any longer.
func (c *cli) summarize(ctx context.Context, client *api.Client, service discovery.Service, id string, record state.Record, w waiting) error {
	var text string
	if record.ID == "" {
		st, err := client.Service(ctx, service)
		if err != nil {
			return err
		}
		text = underWay(st, id, w)
	} else {
		// What the status remembers of the last rollout is without its events.
		if past, err := client.History(ctx, service); err == nil {
			if i := slices.IndexFunc(past, func(r state.Record) bool { return r.ID == id }); i >= 0 {
				record = past[i]
			}
		}
		text = markdown(service, record)
	}
	file, err := os.OpenFile(w.summary, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("--summary: %w", err)
	}
	_, err = file.WriteString(text)
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("--summary: %w", err)
	}
	return nil
}

func underWay(s api.Status, id string, w waiting) string {
	return fmt.Sprintf("### %s: rollout %s has not ended within %s\n\n%s, %s live: %s\n\n", inMarkdown(string(s.Service)), inMarkdown(id), w.timeout, phase(s), live(s), inMarkdown(s.Reason.Text))
}

// markdown is a finished rollout: a table of what became of the clients, and its
// events.
func markdown(service discovery.Service, r state.Record) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s: rollout %s from %s to %s is %s\n\n", inMarkdown(string(service)), inMarkdown(r.ID), r.From, r.To, r.Outcome)
	b.WriteString("| took | evicted | lost | returned | never back |\n|---|---|---|---|---|\n")
	fmt.Fprintf(&b, "| %s | %d | %d | %s | %s |\n\n", short(r.Ended.Sub(r.Started)), r.Evicted, r.Lost,
		about(r.Returned, !r.Estimated, 0), about(r.NeverBack, !r.Estimated, r.NotBack))
	if len(r.LeftBehind) > 0 {
		fmt.Fprintf(&b, "Left behind: %s\n\n", inMarkdown(strings.Join(r.LeftBehind, ", ")))
	}
	if len(r.Events) > 0 {
		b.WriteString("<details><summary>What happened</summary>\n\n| at (UTC) | |\n|---|---|\n")
		for _, e := range r.Events {
			fmt.Fprintf(&b, "| %s | %s |\n", e.At.UTC().Format(time.DateTime), inMarkdown(e.Text))
		}
		b.WriteString("\n</details>\n\n")
	}
	return b.String()
}

// inMarkdown makes text that others wrote plain text in a cell of a table.
func inMarkdown(s string) string {
	plain := strings.NewReplacer("|", `\|`, "`", "\\`", "*", `\*`, "_", `\_`, "[", `\[`)
	return plain.Replace(html.EscapeString(clean(s)))
}
