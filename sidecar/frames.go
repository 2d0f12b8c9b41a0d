package sidecar

import "encoding/binary"

// frames follows one direction of a WebSocket, in whatever pieces it comes, so
// that a frame of our own can stand exactly between two of its frames (RFC 6455,
// 5.2). What no correct peer sends makes it lost, for good: from there on nobody
// knows where a frame ends.
type frames struct {
	masked bool // whether this direction's frames are: the client's are, the server's are not

	have   uint8    // bytes of the header seen
	header [14]byte // of the frame that is under way
	left   uint64   // payload still to come
	closed bool     // a close frame has begun
	lost   bool
}

// between: nothing is under way, a frame may be put here.
func (f *frames) between() bool { return f.have == 0 && f.left == 0 && !f.lost }

// next takes the bytes of p up to the end of the frame that is under way, at
// most all of them, and says how many they are: at least one if p has one.
func (f *frames) next(p []byte) int {
	for i := 0; i < len(p); {
		if f.lost {
			return len(p)
		}
		if f.left > 0 {
			n := min(uint64(len(p)-i), f.left)
			f.left -= n
			i += int(n)
		} else {
			f.take(p[i])
			i++
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

// take takes one byte of a header.
func (f *frames) take(b byte) {
	f.header[f.have] = b
	f.have++
	if f.have < 2 {
		return
	}
	first, length := f.header[0], f.header[1]&0x7f
	if f.have == 2 && !f.legal() {
		f.lost = true
		return
	}
	size, extended := uint8(2), uint8(0)
	switch length {
	case 126:
		extended = 2
	case 127:
		extended = 8
	}
	size += extended
	if f.masked {
		size += 4
	}
	if f.have < size {
		return
	}
	f.have = 0
	switch f.left = uint64(length); extended {
	case 2:
		f.left = uint64(binary.BigEndian.Uint16(f.header[2:]))
		f.lost = f.left < 126
	case 8:
		f.left = binary.BigEndian.Uint64(f.header[2:])
		f.lost = f.left < 1<<16 || f.left >= 1<<63
	}
	f.closed = f.closed || first&0x0f == closeFrame
}

const (
	pongFrame  = 0xa
	closeFrame = 0x8
	isControl  = 0x8 // the bit of an opcode
	isFinal    = 0x80
	isMasked   = 0x80
)

// legal judges the first two bytes of a header. The reserved bits belong to
// extensions, which are the peers' own affair.
func (f *frames) legal() bool {
	opcode, length := f.header[0]&0x0f, f.header[1]&0x7f
	switch {
	case f.masked != (f.header[1]&isMasked != 0):
		return false
	case opcode&isControl == 0:
		return opcode <= 2
	}
	return opcode <= pongFrame && f.header[0]&isFinal != 0 && length < 126
}
