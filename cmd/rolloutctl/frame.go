package main

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// frame is what a terminal of width × height cells shows: never more rows than
// height, never a row wider than width.
func frame(w api.World, notice string, width, height int) []row {
	rows := []row{}
	switch len(w.Services) {
	case 0:
		if !w.At.IsZero() {
			rows = append(rows, row{noService, plain})
		}
	case 1:
		rows = detail(w, width, height)
	default:
		services := slices.Clone(w.Services)
		slices.SortStableFunc(services, func(a, b api.Status) int { return last(a.Rollout == nil) - last(b.Rollout == nil) })
		for _, st := range services {
			rows = append(rows, head(st, w.At, width, false)...)
		}
		if len(rows) > height {
			rows = append(rows[:height-1], row{"… and more; watch SERVICE shows one", faint})
		}
	}
	if notice != "" {
		// The notice must not fall off the end.
		rows = append(rows[:min(len(rows), height-1)], row{clean(notice), red})
	}
	rows = rows[:min(len(rows), height)]
	for i := range rows {
		rows[i].text = cut(rows[i].text, width)
	}
	return rows
}

// detail is one service: the head always, then as much of the instances as fits.
func detail(w api.World, width, height int) []row {
	s := w.Services[0]
	top := head(s, w.At, width, true)
	first := len(top)
	for _, t := range troubles(s, w.At) {
		top = append(top, row{clean(t), red})
	}
	var sides []row
	for i, text := range grid(colourRows(s, width >= 60)) {
		sides = append(sides, row{text, heading(i)})
	}
	all := grid(instanceCells(s, width))
	roomy := len(top)+len(sides)+len(all)+2 <= height
	if len(top)+len(sides)+3 > height {
		// Too small for everything: the troubles give way first, then the instances.
		top = top[:max(min(len(top), height-len(sides)-3), min(first, height-len(sides)-1), min(len(top), 5))]
	}
	rows := top
	if roomy {
		rows = append(rows, row{})
	}
	rows = append(rows, sides...)
	if roomy {
		rows = append(rows, row{})
	}
	left := height - len(rows)
	for i, text := range all {
		if i == left-1 && i < len(all)-1 {
			return append(rows, row{fmt.Sprintf("… and %d more", len(all)-max(i, 1)), faint})
		}
		rows = append(rows, row{text, heading(i)})
	}
	return rows
}

func heading(i int) style {
	if i == 0 {
		return faint
	}
	return plain
}

// instanceCells puts the side that lets go first, its running batch on top, and
// leaves out of a narrow terminal what is not about connections.
func instanceCells(s api.Status, width int) [][]string {
	instances := slices.Clone(s.Instances)
	if r := s.Rollout; r != nil {
		turn := func(i api.Instance) int { // running, to come, done, not draining
			switch {
			case !i.Old:
				return math.MaxInt
			case i.Batch < r.Batch:
				return math.MaxInt - 1
			}
			return i.Batch
		}
		slices.SortStableFunc(instances, func(a, b api.Instance) int { return cmp.Compare(turn(a), turn(b)) })
	}
	rows := instanceRows(instances, width >= 60)
	if width < 60 {
		for i, r := range rows {
			rows[i] = append(r[:1], r[4:]...)
		}
	}
	return rows
}

func last(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// head says where the rollout is, how far, how fast, and why it waits.
func head(s api.Status, now time.Time, width int, withBar bool) []row {
	r := s.Rollout
	why := row{clean(s.Reason.Text), plain}
	if s.Reason.Waiting() {
		why.style = yellow
	}
	proxies := fmt.Sprintf("proxies %d connected, %d confirmed", s.Proxies.Connected, s.Proxies.Confirmed)
	if r == nil {
		title := fmt.Sprintf("%s  %s  %s live", s.Service, phase(s), live(s))
		if s.Last != nil {
			title += fmt.Sprintf("  last %s %s", s.Last.ID, s.Last.Outcome)
		}
		return append([]row{{clean(title), bold}}, append(wrap(why, width, 3), row{proxies, plain})...)
	}
	rows := []row{{clean(fmt.Sprintf("%s  %s  %s → %s  %s", s.Service, phase(s), r.From, r.To, r.ID)), bold}}
	if withBar {
		rows = append(rows, row{bar(*r, width), green})
	}
	numbers := []string{"held " + number(r.Held), fmt.Sprintf("evicted %d", r.Evicted), "outstanding " + outstanding(*r)}
	if r.Asked > 0 {
		numbers = append(numbers, fmt.Sprintf("asked %d", r.Asked))
	}
	numbers = append(append(numbers, losses(*r)...), "pace "+paced(*r))
	if turn := batch(*r); turn != "" {
		numbers = append(numbers, "batch "+turn)
	}
	numbers = append(numbers, "eta "+ahead(r.ETA, now))
	if width >= 60 {
		numbers = append(numbers, fmt.Sprintf("step %d", r.Step), proxies)
	}
	rows = append(rows, flow(numbers, "  ", width, 6, plain)...)
	rows = append(rows, wrap(why, width, 3)...)
	for _, more := range []row{{r.Alarm, red}, {slowed(s), yellow}, {spill(*r), yellow}} {
		if more.text != "" {
			rows = append(rows, wrap(row{clean(more.text), more.style}, width, 3)...)
		}
	}
	return rows
}

// wrap breaks a sentence into rows at its spaces, so that the reason for waiting
// can be read on a narrow terminal.
func wrap(r row, width, most int) []row {
	return flow(strings.Fields(r.text), " ", width, most, r.style)
}

// flow puts words into rows of at most width cells; the last of most rows takes
// all that is left.
func flow(words []string, gap string, width, most int, look style) []row {
	var rows []row
	for _, word := range words {
		n := len(rows)
		if n > 0 && (n == most || cellsOf(rows[n-1].text)+len(gap)+cellsOf(word) <= width) {
			rows[n-1].text += gap + word
			continue
		}
		rows = append(rows, row{word, look})
	}
	return rows
}

// bar is how much of what From held when the funnel started is gone.
func bar(r api.Rollout, width int) string {
	share := 0.0
	switch {
	case r.Phase == state.Soaking:
		share = 1
	case r.Phase == state.Draining && r.Total > 0 && r.Held != nil:
		share = 1 - float64(min(*r.Held, r.Total))/float64(r.Total)
	case r.Phase == state.Draining && r.Total > 0:
		share = min(1, float64(r.Evicted)/float64(r.Total))
	}
	label := fmt.Sprintf(" %3.0f%% of %d", 100*share, r.Total)
	cells := max(width-len(label)-2, 4)
	full := int(share * float64(cells))
	return "[" + strings.Repeat("█", full) + strings.Repeat("░", cells-full) + "]" + label
}

// grid is a table as lines of text.
func grid(rows [][]string) []string {
	var b bytes.Buffer
	_ = table(&b, rows) // a buffer takes everything
	return strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
}

// cut shortens text to as many cells as there are.
func cut(text string, width int) string {
	used := 0
	end := 0 // where to cut if an ellipsis has to follow
	for i, r := range text {
		if used < width {
			end = i
		}
		if used += cells(r); used > width {
			return text[:end] + "…"
		}
	}
	return text
}

func cellsOf(text string) int {
	n := 0
	for _, r := range text {
		n += cells(r)
	}
	return n
}

// cells is how many cells a terminal gives a rune: two to East Asian characters
// and pictures.
func cells(r rune) int {
	switch {
	case r >= 0x1100 && r <= 0x115f, r >= 0x2e80 && r <= 0xa4cf, r >= 0xac00 && r <= 0xd7a3,
		r >= 0xf900 && r <= 0xfaff, r >= 0xfe30 && r <= 0xfe6f, r >= 0xff00 && r <= 0xff60, r >= 0x1f300 && r <= 0x3fffd:
		return 2
	}
	return 1
}
