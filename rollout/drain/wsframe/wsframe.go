// Package wsframe reads, writes and follows the frames of WebSockets (RFC 6455,
// section 5.2). It is for the drain library, the sidecar and the conformity check;
// servers use a WebSocket library. Functions keep nothing; a Tracker belongs to one
// goroutine.
package wsframe

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// The first byte of a frame is an opcode, with Final set on the last frame of a
// message and on every control frame.
const (
	Text  = 0x1
	Close = 0x8
	Ping  = 0x9
	Pong  = 0xa

	Final = 0x80
)

const (
	opcodes   = 0x0f
	isControl = 0x8 // the bit of an opcode
	isMasked  = 0x80
)

// ServiceRestart is a server's close frame with status 1012, "service restart".
const ServiceRestart = "\x88\x11\x03\xf4service restart"

// Goodbye is a server's close frame with a status and a reason in text, of which as
// much is said as a control frame can hold.
func Goodbye(code uint16, reason string) []byte {
	const most = 125 - 2
	for len(reason) > most || !utf8.ValidString(reason) {
		reason = strings.ToValidUTF8(reason[:min(len(reason), most)], "")
	}
	return Append(nil, Final|Close, nil, append(binary.BigEndian.AppendUint16(nil, code), reason...))
}

// Frame is one frame as it was read.
type Frame struct {
	Opcode  byte
	Masked  bool   // it came with a key, as a client's do; Payload is unmasked
	Payload []byte // nil where it was longer than asked for
}

// Read reads one frame; a payload of more than most bytes is read and left out.
// The error is io.EOF where the sender has ended before a frame, a length or a
// payload.
func Read(r io.Reader, most int) (Frame, error) {
	var b [8]byte
	if _, err := io.ReadFull(r, b[:2]); err != nil {
		return Frame{}, err
	}
	f := Frame{Opcode: b[0] & opcodes, Masked: b[1]&isMasked != 0}
	size := uint64(b[1] &^ isMasked)
	if n := extended(b[1]); n > 0 {
		b = [8]byte{}
		if _, err := io.ReadFull(r, b[8-n:]); err != nil {
			return Frame{}, err
		}
		size = binary.BigEndian.Uint64(b[:])
	}
	if size > 1<<40 {
		return Frame{}, fmt.Errorf("a frame of %d bytes", size)
	}
	var key [4]byte
	if f.Masked {
		if _, err := io.ReadFull(r, key[:]); err != nil {
			return Frame{}, err
		}
	}
	if size > uint64(most) {
		_, err := io.CopyN(io.Discard, r, int64(size))
		return f, err
	}
	f.Payload = make([]byte, size)
	_, err := io.ReadFull(r, f.Payload)
	mask(f.Payload, key)
	return f, err
}

// Append appends a frame with this first byte, masked if there is a key: a client
// has one for each frame, a server has none.
func Append(b []byte, first byte, key *[4]byte, payload []byte) []byte {
	masked := byte(0)
	if key != nil {
		masked = isMasked
	}
	b = append(b, first)
	switch n := len(payload); {
	case n < 126:
		b = append(b, masked|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, masked|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, masked|127), uint64(n))
	}
	if key == nil {
		return append(b, payload...)
	}
	b = append(b, key[:]...)
	start := len(b)
	b = append(b, payload...)
	mask(b[start:], *key)
	return b
}

func mask(payload []byte, key [4]byte) {
	for i := range payload {
		payload[i] ^= key[i%4]
	}
}

// extended is how many bytes of length follow a header's second byte.
func extended(second byte) int {
	switch second &^ isMasked {
	case 126:
		return 2
	case 127:
		return 8
	}
	return 0
}
