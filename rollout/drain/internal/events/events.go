// Package events follows a stream of server-sent events, in whatever pieces it is
// written: where an event ends, and which id was the last.
package events

import "strings"

// Tracker follows one stream. The zero value stands at its beginning.
type Tracker struct {
	line  []byte // the line under way, at most maxLine of it
	cr    bool   // the last byte was one, of which a line feed may be a part
	open  bool   // an event is under way
	id    string // of the last event that was complete
	next  string // of the event under way
	known bool   // id and next are the whole of it
	begun bool   // anything was written
}

// maxLine is how much of a line is looked at: a longer id is not known.
const maxLine = 512

// Follow takes p.
func (t *Tracker) Follow(p []byte) {
	if !t.begun {
		t.begun, t.known = true, true
	}
	for _, b := range p {
		feed := b == '\n' && t.cr
		t.cr = b == '\r'
		switch {
		case feed:
		case b == '\n' || b == '\r':
			t.end(string(t.line))
			t.line = t.line[:0]
		case len(t.line) < maxLine:
			t.line = append(t.line, b)
		}
	}
}

// end takes a line.
func (t *Tracker) end(line string) {
	name, value, _ := strings.Cut(line, ":")
	switch {
	case line == "":
		t.open, t.id = false, t.next
	case name == "": // a comment
	case name == "id" && len(line) == maxLine:
		t.open, t.known = true, false
	case name == "id" && !strings.Contains(value, "\x00"):
		t.open, t.next, t.known = true, strings.TrimPrefix(value, " "), true
	default:
		t.open = true
	}
}

// Between reports whether no event is under way, and the last id, if it is known.
func (t *Tracker) Between() (id string, ok bool) {
	return t.id, !t.open && len(t.line) == 0 && (t.known || !t.begun)
}
