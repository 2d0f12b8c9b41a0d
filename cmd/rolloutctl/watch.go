package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/state"
)

func (c *cli) watch() *cobra.Command {
	return &cobra.Command{
		Use:   "watch [SERVICE]",
		Short: "Show what happens while it happens, until q or Ctrl-C",
		Args:  c.maybeService, ValidArgsFunction: c.words(c.knownServices),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			ctx, quit := context.WithCancel(cmd.Context())
			defer quit()
			v := c.newViewer(false)
			if s, ok := v.(*screen); ok {
				defer quitKey(s.file, quit)()
			}
			for world, err := range follow(ctx, client, discovery.Service(c.service), false, v.notice) {
				if err == nil {
					err = v.show(world)
				}
				if ctx.Err() != nil {
					break
				}
				if err != nil {
					v.close()
					return err
				}
			}
			v.close()
			_, err = fmt.Fprintln(c.err, "rolloutctl: no longer watching; what is under way goes on by itself")
			return err
		},
	}
}

// viewer shows the world again and again.
type viewer interface {
	show(api.World) error
	notice(string)
	close()
}

// newViewer chooses how: JSON lines, redrawn in place on a terminal, else one line
// per change. A command that waits keeps its JSON output for its results and
// shows the lines on stderr.
func (c *cli) newViewer(waiting bool) viewer {
	switch file, ok := c.terminal.(*os.File); {
	case c.json() && waiting:
		return &lines{out: c.err, err: c.err, calm: calm}
	case c.json():
		return jsonLines{out: c.out, err: c.err}
	case ok && term.IsTerminal(int(file.Fd())) && os.Getenv("TERM") != "dumb":
		return newScreen(file, c.plain)
	case waiting:
		return &lines{out: c.out, err: c.err, calm: calm}
	}
	return &lines{out: c.out, err: c.err, calm: time.Second}
}

// calm is how often a command that waits says at most how far it is, while nothing
// but numbers changes: a rollout of an hour is 360 lines in the log of a pipeline.
const calm = 10 * time.Second

type jsonLines struct{ out, err io.Writer }

func (j jsonLines) show(w api.World) error { return json.NewEncoder(j.out).Encode(w) }
func (j jsonLines) notice(s string)        { _, _ = fmt.Fprintln(j.err, "rolloutctl: "+s) }
func (j jsonLines) close()                 {}

// lines prints a service's line when it differs from the one before; when only
// numbers do, at most once in calm of the server's time.
type lines struct {
	out, err io.Writer
	calm     time.Duration
	last     map[discovery.Service]printed
}

type printed struct {
	line string
	kind string
	at   time.Time
}

func (l *lines) show(w api.World) error {
	if l.last == nil {
		l.last = map[discovery.Service]printed{}
	}
	for _, s := range w.Services {
		p := printed{line: line(s, w.At), kind: kind(s), at: w.At}
		if was, ok := l.last[s.Service]; ok && (p.line == was.line || p.kind == was.kind && w.At.Sub(was.at) < l.calm) {
			continue
		}
		l.last[s.Service] = p
		if _, err := fmt.Fprintf(l.out, "%s %s\n", w.At.UTC().Format(time.RFC3339), p.line); err != nil {
			return err
		}
	}
	return nil
}

func (l *lines) notice(s string) { _, _ = fmt.Fprintln(l.err, "rolloutctl: "+s) }
func (l *lines) close()          {}

// kind is what of a service is told at once when it changes.
func kind(s api.Status) string {
	if r := s.Rollout; r != nil {
		return fmt.Sprint(phase(s), s.Live, s.Reason.Code, r.Batch, r.Spill, r.Alarm != "", r.Pace.Why != "")
	}
	return fmt.Sprint(phase(s), s.Live, s.Reason.Code)
}

// line is a service in one line: phase, numbers, reason.
func line(s api.Status, now time.Time) string {
	text := fmt.Sprintf("%s %s, %s live", s.Service, phase(s), live(s))
	if r := s.Rollout; r != nil {
		text = fmt.Sprintf("%s %s, %s to %s", s.Service, phase(s), r.From, r.To)
		if r.Phase == state.Draining || r.Phase == state.Soaking {
			text += fmt.Sprintf(", held %s, evicted %d, outstanding %s", held(*r), r.Evicted, outstanding(*r))
			for _, loss := range losses(*r) {
				text += ", " + loss
			}
		}
		if turn := batch(*r); turn != "" {
			text += ", batch " + turn
		}
		text += ", pace " + paced(*r)
		if r.ETA != nil {
			text += ", eta " + moment(r.ETA.Round(time.Second), now)
		}
	}
	if s.Reason.Text != "" {
		text += ": " + s.Reason.Text
	}
	if s.Rollout != nil {
		for _, more := range []string{slowed(s), spill(*s.Rollout), s.Rollout.Alarm} {
			if more != "" {
				text += "; " + more
			}
		}
	}
	return clean(text)
}
