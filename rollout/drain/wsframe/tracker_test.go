package wsframe

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// frame builds one frame; its payload looks like headers.
func frame(first byte, masked bool, payload int) []byte {
	var key *[4]byte
	if masked {
		key = new([4]byte)
	}
	return Append(nil, first, key, bytes.Repeat([]byte{0x88}, payload))
}

// boundaries returns the offsets at which a frame may be put in, when the bytes
// come in pieces of the given sizes, over and over.
func (tr *Tracker) boundaries(t *testing.T, b []byte, sizes ...int) (at []int) {
	for done, i := 0, 0; done < len(b); i++ {
		piece := b[done:min(len(b), done+max(1, sizes[i%len(sizes)]))]
		for len(piece) > 0 {
			n := tr.Next(piece)
			if n < 1 || n > len(piece) {
				t.Fatalf("next took %d of %d bytes", n, len(piece))
			}
			piece, done = piece[n:], done+n
			if tr.Between() {
				at = append(at, done)
			}
		}
	}
	return at
}

// parsed is a whole-buffer parse, written differently, to hold a Tracker against.
func parsed(b []byte, from Sender) (at []int, lost bool) {
	for end := 0; ; {
		rest := b[end:]
		if len(rest) < 2 {
			return at, false
		}
		judged := from != Anyone
		opcode, size, masked := rest[0]&15, uint64(rest[1]&127), rest[1] >= 128
		control := slices.Contains([]byte{8, 9, 10}, opcode)
		if judged && (!control && opcode > 2 || masked != (from == Client) || control && (rest[0] < 128 || size > 125)) {
			return at, true
		}
		header := max(2, map[uint64]int{126: 4, 127: 10}[size])
		key := 0
		if masked {
			key = 4
		}
		if len(rest) < header+key {
			return at, false
		}
		switch header {
		case 4:
			if size = uint64(binary.BigEndian.Uint16(rest[2:])); judged && size <= 125 {
				return at, true
			}
		case 10:
			if size = binary.BigEndian.Uint64(rest[2:]); judged && (size <= 65535 || int64(size) < 0) {
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
func FuzzTracker(f *testing.F) {
	for from := range Client + 1 {
		for _, masked := range []bool{false, true} {
			add := func(b []byte, first, second uint8) { f.Add(b, uint8(from), first, second) }
			add(slices.Concat(frame(0x01, masked, 3), frame(0x89, masked, 0), frame(0x80, masked, 300), frame(0xc2, masked, 126), frame(0x88, masked, 2)), 1, 5)
			add(frame(0x83, masked, 3), 3, 200)
			add(frame(0x08, masked, 3), 3, 200)
			add(frame(0x89, masked, 200), 3, 200)
			add(frame(0x82, masked, 1<<16)[:300], 40, 7)
		}
		f.Add(slices.Concat(frame(0x81, false, 5), frame(0x89, true, 0), frame(0x82, true, 1<<16), frame(0x88, false, 2)), uint8(from), uint8(2), uint8(3))
		f.Add([]byte("\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff1234"), uint8(from), uint8(1), uint8(1))
		f.Add([]byte("\x82\x7e\x00\x05hello"), uint8(from), uint8(1), uint8(1))
		f.Add([]byte("\x82\x7f\x00\x00\x00\x00\x00\x00\x00\x05hello"), uint8(from), uint8(1), uint8(1))
	}
	f.Fuzz(func(t *testing.T, b []byte, sender, first, second uint8) {
		from := Sender(sender) % (Client + 1)
		want, lost := parsed(b, from)
		for _, sizes := range [][]int{{len(b)}, {1}, {int(first), int(second)}} {
			tr := Tracker{From: from}
			if got := tr.boundaries(t, b, sizes...); !slices.Equal(got, want) || tr.Lost() != lost {
				t.Fatalf("in pieces of %v: boundaries %v, lost %t; want %v, %t", sizes, got, tr.Lost(), want, lost)
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
		for from := range Client {
			tr := Tracker{From: from}
			tr.Follow(tc.bytes)
			if tr.Closed() != tc.want {
				t.Errorf("%s: closed is %t, want %t", name, tr.Closed(), tc.want)
			}
		}
	}
}
