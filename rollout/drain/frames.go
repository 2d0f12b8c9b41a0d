package drain

import "encoding/binary"

// goodbye1012 is a WebSocket close frame: status 1012, "service restart".
const goodbye1012 = "\x88\x11\x03\xf4service restart"

// frames follows what a server writes to an upgraded connection, in whatever
// pieces, so that a frame of our own can stand exactly between two of its frames.
// It starts with the HTTP response head, or with skipHead behind it.
type frames struct {
	part   part
	have   uint8    // bytes of the header, or of the status line, seen
	blank  uint8    // how much of "\r\n\r\n" the head ends in
	header [14]byte // of the frame that is under way
	left   uint64   // payload still to come
	closed bool     // a close frame has gone out
}

type part uint8

const (
	inHead    part = iota // in the HTTP response head
	inHeader              // in a frame's header, or before it
	inPayload             // in a frame's payload
	notFrames             // the response was not 101: whatever follows is no frame
)

func (f *frames) skipHead() { f.part = inHeader }

// between: nothing is under way, a frame may be put here.
func (f *frames) between() bool { return f.part == inHeader && f.have == 0 }

// next takes the bytes of p up to the end of the head or frame that is under
// way, at most all of them, and says how many they are: at least one if p has one.
func (f *frames) next(p []byte) int {
	for i := 0; i < len(p); {
		switch f.part {
		case notFrames:
			return len(p)
		case inHead:
			f.head(p[i])
			i++
		case inHeader:
			f.frameHeader(p[i])
			i++
		case inPayload:
			n := min(uint64(len(p)-i), f.left)
			f.left -= n
			i += int(n)
			if f.left == 0 {
				f.part = inHeader
			}
		}
		if f.between() {
			return i
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
		f.part, f.have = inHeader, 0
	}
}

// frameHeader takes one byte of a frame's header (RFC 6455, 5.2).
func (f *frames) frameHeader(b byte) {
	f.header[f.have] = b
	f.have++
	if f.have < 2 {
		return
	}
	length := f.header[1] & 0x7f
	extended := uint8(0)
	switch length {
	case 126:
		extended = 2
	case 127:
		extended = 8
	}
	size := 2 + extended
	if f.header[1]&0x80 != 0 {
		size += 4 // a masking key: servers must not, but it is no reason to lose track
	}
	if f.have < size {
		return
	}
	switch extended {
	case 2:
		f.left = uint64(binary.BigEndian.Uint16(f.header[2:]))
	case 8:
		f.left = binary.BigEndian.Uint64(f.header[2:])
	default:
		f.left = uint64(length)
	}
	const closeFrame = 0x8
	if f.header[0]&0x0f == closeFrame {
		f.closed = true
	}
	f.have = 0
	if f.left > 0 {
		f.part = inPayload
	}
}
