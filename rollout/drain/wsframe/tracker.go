package wsframe

import "encoding/binary"

// Sender is who sends the frames that a Tracker follows.
type Sender uint8

const (
	// Anyone sends whatever it likes: nothing is judged, only lengths count.
	Anyone Sender = iota
	// Server and Client send legal frames, without and with a mask. At one that is
	// not legal the Tracker is lost.
	Server
	Client
)

// Tracker follows one direction of a WebSocket, in whatever pieces it comes, so
// that a frame of somebody else can stand exactly between two of its frames. The
// zero Tracker follows Anyone, from before the first frame; a copy goes on by
// itself.
type Tracker struct {
	// From is set before the first byte.
	From Sender

	have   uint8    // bytes of the header seen
	header [14]byte // of the frame that is under way
	left   uint64   // bytes of payload still to come
	open   bool     // the last data frame was not its message's last
	closed bool
	lost   bool
}

// Between reports whether nothing is under way: a frame may be put here.
func (t *Tracker) Between() bool { return t.have == 0 && t.left == 0 && !t.lost }

// InMessage reports whether a message is under way, in a frame of it or between
// two of its fragments.
func (t *Tracker) InMessage() bool { return t.open || !t.Between() }

// Closed reports whether the header of a close frame has passed.
func (t *Tracker) Closed() bool { return t.closed }

// Lost reports whether a frame was not legal. It stays so: from there on nobody
// knows where a frame ends.
func (t *Tracker) Lost() bool { return t.lost }

// Next takes the bytes of p up to the end of the frame that is under way, at
// most all of them, and says how many they are: at least one if p has one.
func (t *Tracker) Next(p []byte) int {
	for i := 0; i < len(p); {
		if t.lost {
			return len(p)
		}
		if t.left > 0 {
			n := min(uint64(len(p)-i), t.left)
			t.left -= n
			i += int(n)
		} else {
			t.take(p[i])
			i++
		}
		if t.Between() {
			return i
		}
	}
	return len(p)
}

// Follow takes all of p.
func (t *Tracker) Follow(p []byte) {
	for len(p) > 0 {
		p = p[t.Next(p):]
	}
}

// take takes one byte of a header.
func (t *Tracker) take(b byte) {
	t.header[t.have] = b
	t.have++
	if t.have < 2 {
		return
	}
	if t.have == 2 && !t.legal() {
		t.lost = true
		return
	}
	second := t.header[1]
	more := extended(second)
	size := 2 + more
	if second&isMasked != 0 {
		size += 4
	}
	if int(t.have) < size {
		return
	}
	t.have = 0
	switch more {
	case 2:
		t.left = uint64(binary.BigEndian.Uint16(t.header[2:]))
		t.lost = t.From != Anyone && t.left < 126
	case 8:
		t.left = binary.BigEndian.Uint64(t.header[2:])
		t.lost = t.From != Anyone && (t.left < 1<<16 || t.left >= 1<<63)
	default:
		t.left = uint64(second &^ isMasked)
	}
	t.closed = t.closed || t.header[0]&opcodes == Close
	if t.header[0]&isControl == 0 {
		t.open = t.header[0]&Final == 0
	}
}

// legal judges the first two bytes of a header. The reserved bits belong to
// extensions, which are the peers' own affair.
func (t *Tracker) legal() bool {
	opcode, length := t.header[0]&opcodes, t.header[1]&^isMasked
	switch {
	case t.From == Anyone:
		return true
	case (t.From == Client) != (t.header[1]&isMasked != 0):
		return false
	case opcode&isControl == 0:
		return opcode <= 2
	}
	return opcode <= Pong && t.header[0]&Final != 0 && length < 126
}
