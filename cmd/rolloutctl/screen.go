package main

import (
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/sluice-proxy/sluice/rollout/api"
)

// screen redraws a terminal in place, in the size that it has at that moment.
type screen struct {
	file   *os.File
	colour bool
	plain  bool // ASCII only
	drawn  int  // lines of the last frame; 0 before the first
	world  api.World
	said   string // the last notice, shown until the next world
}

func newScreen(file *os.File, plain bool) *screen {
	return &screen{file: file, plain: plain, colour: os.Getenv("NO_COLOR") == ""}
}

const (
	hideCursor = "\x1b[?25l"
	showCursor = "\x1b[?25h"
	clearAll   = "\x1b[2J"
	home       = "\x1b[H"
	clearLine  = "\x1b[K"
	clearBelow = "\x1b[J"
)

func (s *screen) show(w api.World) error {
	s.world, s.said = w, ""
	return s.draw()
}

func (s *screen) notice(text string) {
	s.said = text
	_ = s.draw() // the next world says what is wrong with the terminal
}

func (s *screen) draw() error {
	width, height, err := term.GetSize(int(s.file.Fd()))
	if err != nil || width < 1 || height < 1 {
		width, height = 80, 24
	}
	rows := frame(s.world, s.said, width, height)
	var b strings.Builder
	if s.drawn == 0 {
		b.WriteString(hideCursor + clearAll)
	}
	b.WriteString(home)
	for i, r := range rows {
		if i > 0 {
			b.WriteString("\r\n")
		}
		if s.plain {
			r.text = inASCII(r.text)
		}
		b.WriteString(r.paint(s.colour) + clearLine)
	}
	b.WriteString(clearBelow)
	s.drawn = len(rows)
	_, err = s.file.WriteString(b.String())
	return err
}

// close gives the cursor back below what was drawn.
func (s *screen) close() {
	if s.drawn > 0 {
		_, _ = s.file.WriteString(showCursor + "\r\n")
	}
}

// row is one line of a frame and how it looks.
type row struct {
	text  string
	style style
}

type style string

const (
	plain  style = ""
	bold   style = "1"
	faint  style = "2"
	green  style = "32"
	yellow style = "33"
	red    style = "31"
)

func (r row) paint(colour bool) string {
	if !colour || r.style == plain || r.text == "" {
		return r.text
	}
	return "\x1b[" + string(r.style) + "m" + r.text + "\x1b[0m"
}
