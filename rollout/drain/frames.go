package drain

import "github.com/sluice-proxy/sluice/rollout/drain/wsframe"

// frames follows what a server writes to an upgraded connection, in whatever
// pieces: the HTTP response head, and behind it frames of a WebSocket, between
// which a frame of our own can stand. A library that writes its head elsewhere
// starts with skipHead.
type frames struct {
	wsframe.Tracker // behind the head
	part            part
	have            uint8 // bytes of the status line seen
	blank           uint8 // how much of "\r\n\r\n" the head ends in
}

type part uint8

const (
	inHead    part = iota // in the HTTP response head
	inFrames              // behind it
	notFrames             // the response was not 101: whatever follows is no frame
)

func (f *frames) skipHead() { f.part = inFrames }

// between: nothing is under way, a frame may be put here.
func (f *frames) between() bool { return f.part == inFrames && f.Between() }

// next takes the bytes of p up to the end of the head or frame that is under
// way, at most all of them, and says how many they are: at least one if p has one.
func (f *frames) next(p []byte) int {
	switch f.part {
	case notFrames:
		return len(p)
	case inFrames:
		return f.Next(p)
	}
	for i, b := range p {
		f.head(b)
		switch f.part {
		case notFrames:
			return len(p)
		case inFrames:
			return i + 1
		}
	}
	return len(p)
}

// follow takes all of p.
func (f *frames) follow(p []byte) {
	for len(p) > 0 {
		p = p[f.next(p):]
	}
}

// head takes one byte of the response head: "HTTP/1.1 101 …", up to an empty line.
func (f *frames) head(b byte) {
	const status = "HTTP/1.1 101"
	if int(f.have) < len(status) {
		if b != status[f.have] {
			f.part = notFrames
			return
		}
		f.have++
		return
	}
	switch {
	case b == "\r\n\r\n"[f.blank]:
		f.blank++
	case b == '\r':
		f.blank = 1
	default:
		f.blank = 0
	}
	if f.blank == 4 {
		f.part = inFrames
	}
}
