package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/sluice-proxy/sluice/examples/swarm/clients"
)

// progress is one line that is redrawn on a terminal; elsewhere it is a line
// every few seconds in which something changed.
type progress struct {
	out   io.Writer
	name  string
	live  bool
	began time.Time

	mu   sync.Mutex
	last string
}

func newProgress(out io.Writer, name string) *progress {
	f, ok := out.(*os.File)
	return &progress{out: out, name: name, live: ok && term.IsTerminal(int(f.Fd())), began: time.Now()}
}

// say replaces the line.
func (p *progress) say(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if text == p.last {
		return
	}
	p.last = text
	line := fmt.Sprintf("%-6s %5.1f s  %s", p.name, time.Since(p.began).Seconds(), text)
	if p.live {
		fmt.Fprintf(p.out, "\r\x1b[K%s", line)
		return
	}
	fmt.Fprintln(p.out, line)
}

// end leaves the line and begins another.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live {
		fmt.Fprintln(p.out)
	}
}

// follow shows the clients until ctx ends.
func (p *progress) follow(ctx context.Context, swarm *clients.Swarm) {
	between := 5 * time.Second
	if p.live {
		between = 200 * time.Millisecond
	}
	tick := time.NewTicker(between)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p.say(shown(swarm.Connected(), swarm.Size()))
	}
}

// shown is like "blue   60  green   38  away 2  ████████████░░░░░░░".
func shown(c clients.Counts, size int) string {
	const wide = 30
	blue, green := c.Colour["blue"], c.Colour["green"]
	full := min(wide, green*wide/size)
	return fmt.Sprintf("%s%s  blue %d, green %d, away %d", strings.Repeat("█", full), strings.Repeat("░", wide-full), blue, green, max(0, size-c.Total))
}
