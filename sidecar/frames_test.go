package sidecar

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// frame builds one frame; its payload looks like headers.
func frame(first byte, masked bool, payload int) []byte {
	b, mask := []byte{first}, byte(0)
	if masked {
		mask = isMasked
	}
	switch {
	case payload < 126:
		b = append(b, mask|byte(payload))
	case payload < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, mask|126), uint16(payload))
	default:
		b = binary.BigEndian.AppendUint64(append(b, mask|127), uint64(payload))
	}
	if masked {
		b = append(b, 1, 2, 3, 4)
	}
	return append(b, bytes.Repeat([]byte{0x88}, payload)...)
}

// boundaries returns the offsets at which a frame may be put in, when the bytes
// come in pieces of the given sizes, over and over.
func (f *frames) boundaries(t *testing.T, b []byte, sizes ...int) (at []int) {
	for done, i := 0, 0; done < len(b); i++ {
		piece := b[done:min(len(b), done+max(1, sizes[i%len(sizes)]))]
		for len(piece) > 0 {
			n := f.next(piece)
			if n < 1 || n > len(piece) {
				t.Fatalf("next took %d of %d bytes", n, len(piece))
			}
			piece, done = piece[n:], done+n
			if f.between() {
				at = append(at, done)
			}
		}
	}
	return at
}

// parsed is a whole-buffer parse, written differently, to hold frames against.
func parsed(b []byte, masked bool) (at []int, lost bool) {
	for end := 0; ; {
		rest := b[end:]
		if len(rest) < 2 {
			return at, false
		}
		opcode, size := rest[0]&15, uint64(rest[1]&127)
		control := slices.Contains([]byte{8, 9, 10}, opcode)
		if !control && opcode > 2 || (rest[1] >= 128) != masked || control && (rest[0] < 128 || size > 125) {
			return at, true
		}
		header := map[uint64]int{126: 4, 127: 10}[size]
		header = max(header, 2)
		key := 0
		if masked {
			key = 4
		}
		if len(rest) < header+key {
			return at, false
		}
		switch header {
		case 4:
			if size = uint64(binary.BigEndian.Uint16(rest[2:])); size <= 125 {
				return at, true
			}
		case 10:
			if size = binary.BigEndian.Uint64(rest[2:]); size <= 65535 || int64(size) < 0 {
				return at, true
			}
		}
		if uint64(len(rest)-header-key) < size {
			return at, false
		}
		end += header + key + int(size)
		at = append(at, end)
	}
}

// Any split of any bytes has the boundaries of a whole-buffer parse, and is lost
// where that is.
func FuzzFrames(f *testing.F) {
	for _, masked := range []bool{false, true} {
		f.Add(slices.Concat(frame(0x01, masked, 3), frame(0x89, masked, 0), frame(0x80, masked, 300), frame(0xc2, masked, 126), frame(0x88, masked, 2)), masked, uint8(1), uint8(5))
		f.Add(frame(0x83, masked, 3), masked, uint8(3), uint8(200))
		f.Add(frame(0x08, masked, 3), masked, uint8(3), uint8(200))
		f.Add(frame(0x89, masked, 200), masked, uint8(3), uint8(200))
	}
	f.Add(frame(0x82, false, 1<<16)[:300], false, uint8(40), uint8(7))
	f.Add([]byte("\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff1234"), true, uint8(1), uint8(1))
	f.Add([]byte("\x82\x7e\x00\x05hello"), false, uint8(1), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, masked bool, first, second uint8) {
		want, lost := parsed(b, masked)
		for _, sizes := range [][]int{{len(b)}, {1}, {int(first), int(second)}} {
			fr := frames{masked: masked}
			if got := fr.boundaries(t, b, sizes...); !slices.Equal(got, want) || fr.lost != lost {
				t.Fatalf("in pieces of %v: boundaries %v, lost %t; want %v, %t", sizes, got, fr.lost, want, lost)
			}
		}
	})
}

func TestCloseFramesAreSeen(t *testing.T) {
	for name, tc := range map[string]struct {
		bytes []byte
		want  bool
	}{
		"a message":   {frame(0x81, false, 9), false},
		"a ping":      {frame(0x89, false, 9), false},
		"a close":     {frame(0x88, false, 2), true},
		"after pings": {slices.Concat(frame(0x89, false, 0), frame(0x88, false, 0)), true},
	} {
		var f frames
		f.follow(tc.bytes)
		if f.closed != tc.want {
			t.Errorf("%s: closed is %t, want %t", name, f.closed, tc.want)
		}
	}
}

func TestOurOwnCloseFrameIsAClientsOne(t *testing.T) {
	b := maskedGoodbye()
	f := frames{masked: true}
	f.follow(b)
	if !f.closed || !f.between() {
		t.Errorf("% x is no masked close frame", b)
	}
	if code := binary.BigEndian.Uint16([]byte{b[6] ^ b[2], b[7] ^ b[3]}); code != 1001 {
		t.Errorf("its code is %d, want 1001", code)
	}
}
