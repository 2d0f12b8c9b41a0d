package main

import (
	"context"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a real pseudo terminal whose other end is a small emulator: it
// knows what a screen writes and complains about everything else, about a line
// that wraps and about a screen that scrolls.
type terminal struct {
	*os.File // what the program writes to

	master *os.File
	mu     sync.Mutex
	cells  [][]rune
	x, y   int
	hidden bool
	styled bool
	wrongs []string
	shown  *sync.Cond
}

func openTerminal(t *testing.T, wide, high int) *terminal {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatalf("this test needs a pseudo terminal: %v", err)
	}
	t.Cleanup(func() { _ = master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slave.Close() })
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(high), Col: uint16(wide)}); err != nil {
		t.Fatal(err)
	}
	e := &terminal{File: slave, master: master, cells: make([][]rune, high)}
	for y := range e.cells {
		e.cells[y] = []rune(strings.Repeat(" ", wide))
	}
	e.shown = sync.NewCond(&e.mu)
	return e
}

// run reads what the program writes until the terminal is closed.
func (e *terminal) run() {
	var text strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := e.master.Read(buf)
		if err != nil {
			return
		}
		text.Write(buf[:n])
		rest := e.take(text.String())
		text.Reset()
		text.WriteString(rest)
	}
}

// take draws all complete characters and returns the rest.
func (e *terminal) take(text string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	defer e.shown.Broadcast()
	for text != "" {
		if text[0] == 0x1b {
			end := strings.IndexFunc(text[1:], func(r rune) bool { return r >= '@' && r != '[' })
			if end < 0 {
				return text
			}
			e.escape(text[1 : end+2])
			text = text[end+2:]
			continue
		}
		r, rest, ok := first(text)
		if !ok {
			return text
		}
		e.draw(r)
		text = rest
	}
	return ""
}

func first(text string) (rune, string, bool) {
	for i := 1; i <= min(4, len(text)); i++ {
		if r := []rune(text[:i]); len(r) == 1 && r[0] != '\uFFFD' {
			return r[0], text[i:], true
		}
	}
	return 0, text, false
}

func (e *terminal) escape(code string) {
	switch code {
	case "[H":
		e.x, e.y = 0, 0
	case "[2J":
		for y := range e.cells {
			e.blank(y, 0)
		}
	case "[K":
		e.blank(e.y, e.x)
	case "[J":
		e.blank(e.y, e.x)
		for y := e.y + 1; y < len(e.cells); y++ {
			e.blank(y, 0)
		}
	case "[?25l", "[?25h":
		e.hidden = code == "[?25l"
	default:
		if e.styled = true; !strings.HasSuffix(code, "m") {
			e.wrongs = append(e.wrongs, "escape "+strconv.Quote(code))
		}
	}
}

func (e *terminal) blank(y, from int) {
	for x := from; x < len(e.cells[y]); x++ {
		e.cells[y][x] = ' '
	}
}

func (e *terminal) draw(r rune) {
	switch {
	case r == '\r':
		e.x = 0
	case r == '\n' && e.y == len(e.cells)-1:
		if e.hidden {
			e.wrongs = append(e.wrongs, "it scrolls")
		}
	case r == '\n':
		e.y++
	case e.x >= len(e.cells[0]):
		e.wrongs = append(e.wrongs, "a line wraps at "+strconv.QuoteRune(r))
	default:
		e.cells[e.y][e.x] = r
		e.x++
	}
}

// text is what the terminal shows.
func (e *terminal) text() string {
	var b strings.Builder
	for _, row := range e.cells {
		b.WriteString(strings.TrimRight(string(row), " ") + "\n")
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// await returns what is shown once it holds all of the words.
func (e *terminal) await(ctx context.Context, words ...string) string {
	stop := context.AfterFunc(ctx, e.shown.Broadcast)
	defer stop()
	e.mu.Lock()
	defer e.mu.Unlock()
	for ctx.Err() == nil {
		all := true
		for _, w := range words {
			all = all && strings.Contains(e.text(), w)
		}
		if all {
			break
		}
		e.shown.Wait()
	}
	return e.text()
}

func TestWatchOnATerminal(t *testing.T) {
	for _, size := range [][2]int{{80, 24}, {40, 12}} {
		for _, colour := range []bool{true, false} {
			noColour := map[bool]string{true: "", false: "1"}[colour]
			t.Setenv("NO_COLOR", noColour)
			t.Setenv("TERM", "xterm")
			a := &actor{set: map[string]string{}, now: "draining"}
			ts := httptest.NewServer(a.handler())
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			term := openTerminal(t, size[0], size[1])
			var reading, watching sync.WaitGroup
			reading.Go(term.run)
			code := -1
			var stderr strings.Builder
			seen, done := context.WithCancel(ctx)
			watching.Go(func() { code = run(seen, []string{"watch", "--server", ts.URL}, term.File, &stderr) })
			shown := term.await(ctx, "chat  draining  blue → green", "chat-b1", "held 120", "eta 2126", "10 connections go every 3s", map[int]string{80: "chat-g2", 40: "and 3 more"}[size[0]])
			if !term.hidden {
				t.Error("the cursor is not hidden")
			}
			done()
			watching.Wait()
			term.await(ctx)
			cancel()
			ts.CloseClientConnections()
			ts.Close()
			_ = term.File.Close()
			reading.Wait()
			if len(term.wrongs) > 0 || term.hidden || term.styled != colour || code != 0 {
				t.Errorf("%v colour %v: wrong %q, cursor hidden %v, styled %v, exit %d, shown\n%s", size, colour, term.wrongs, term.hidden, term.styled, code, shown)
			}
			if !strings.Contains(stderr.String(), "goes on by itself") {
				t.Errorf("Ctrl-C says %q", stderr.String())
			}
			want, err := os.ReadFile("testdata/frames/draining-2-" + strconv.Itoa(size[0]) + ".txt")
			shown = strings.ReplaceAll(shown, "\r", "")
			if i := strings.Index(shown, " (in "); i > 0 {
				end := i + strings.IndexByte(shown[i:], ')')
				shown = shown[:i] + " (in T" + shown[end:]
			}
			if *update {
				err = os.WriteFile("testdata/frames/draining-2-"+strconv.Itoa(size[0])+".txt", []byte(shown), 0o644)
				want = []byte(shown)
			}
			if err != nil || shown != string(want) {
				t.Errorf("%v shows\n%s\nwant\n%s (%v)", size, shown, want, err)
			}
		}
	}
}

// q ends watch as Ctrl-C does, and leaves the terminal as it was.
func TestQuitsByKey(t *testing.T) {
	t.Setenv("TERM", "xterm")
	t.Setenv("LC_ALL", "C")
	for _, key := range []string{"q", "xQ", "\x03"} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		ts := httptest.NewServer((&actor{set: map[string]string{}, now: "draining"}).handler())
		emulator := openTerminal(t, 80, 24)
		was, err := unix.IoctlGetTermios(int(emulator.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		var reading, watching sync.WaitGroup
		reading.Go(emulator.run)
		code := -1
		var stderr strings.Builder
		watching.Go(func() { code = run(ctx, []string{"watch", "--server", ts.URL}, emulator.File, &stderr) })
		emulator.await(ctx, "chat  draining  blue > green", "[####", "10 connections go every 3s")
		if _, err := emulator.master.WriteString(key); err != nil {
			t.Fatal(err)
		}
		watching.Wait()
		is, err := unix.IoctlGetTermios(int(emulator.Fd()), unix.TCGETS)
		if err != nil || *is != *was || ctx.Err() != nil || code != 0 || !strings.Contains(stderr.String(), "goes on by itself") {
			t.Errorf("%q: exit %d, %q, the terminal is as it was: %v (%v, %v)", key, code, &stderr, *is == *was, err, ctx.Err())
		}
		cancel()
		ts.CloseClientConnections()
		ts.Close()
		_ = emulator.File.Close()
		reading.Wait()
	}
}

// What the terminal shows shrinks with what there is to show: nothing of the
// frame before stays.
func TestScreenLeavesNothingBehind(t *testing.T) {
	term := openTerminal(t, 80, 24)
	var reading sync.WaitGroup
	reading.Go(term.run)
	s := newScreen(term.File, false)
	all := scenes()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, name := range []string{"many", "troubled", "steady", "done", "services", "empty"} {
		if err := s.show(all[name]); err != nil {
			t.Fatal(err)
		}
		want := strings.TrimRight(render(frame(all[name], "", 80, 24)), "\n") + "\n"
		lines := strings.Split(want, "\n")
		for i, l := range lines {
			lines[i] = strings.TrimRight(l, " ")
		}
		want = strings.Join(lines, "\n")
		if got := term.await(ctx, want); got != want {
			t.Errorf("%s shows\n%s\nwant\n%s", name, got, want)
		}
	}
	_ = term.File.Close()
	reading.Wait()
}
