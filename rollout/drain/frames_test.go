package drain

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

const upgraded = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"

// frame builds what a server writes for one frame.
func frame(first byte, payload int) []byte {
	b := []byte{first}
	switch {
	case payload < 126:
		b = append(b, byte(payload))
	case payload < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(payload))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(payload))
	}
	return append(b, bytes.Repeat([]byte{0x88}, payload)...)
}

// boundaries returns the offsets at which a frame may be put in, when the bytes
// come in pieces of the given sizes, over and over.
func boundaries(b []byte, skipHead bool, sizes ...int) (at []int) {
	var f frames
	if skipHead {
		f.skipHead()
	}
	for done, i := 0, 0; done < len(b); i++ {
		piece := b[done:min(len(b), done+max(1, sizes[i%len(sizes)]))]
		for len(piece) > 0 {
			n := f.next(piece)
			piece, done = piece[n:], done+n
			if f.between() {
				at = append(at, done)
			}
		}
	}
	return at
}

func TestFramesAreFollowed(t *testing.T) {
	masked := append([]byte{0x82, 0x83, 1, 2, 3, 4}, "abc"...)
	for name, tc := range map[string]struct {
		skipHead bool
		pieces   [][]byte
	}{
		"head and frames of every length": {false, [][]byte{[]byte(upgraded), frame(0x81, 0), frame(0x02, 125), frame(0x80, 126), frame(0x82, 1<<16), frame(0x88, 2)}},
		"no head":                         {true, [][]byte{frame(0x81, 5), frame(0x89, 0), masked, frame(0x82, 127)}},
	} {
		var want []int
		end := 0
		for _, p := range tc.pieces {
			end += len(p)
			want = append(want, end)
		}
		all := slices.Concat(tc.pieces...)
		for _, sizes := range [][]int{{len(all)}, {1}, {2, 3}, {7}, {4096}} {
			if got := boundaries(all, tc.skipHead, sizes...); !slices.Equal(got, want) {
				t.Errorf("%s in pieces of %v: boundaries %v, want %v", name, sizes, got, want)
			}
		}
	}
}

func TestNoFramesAfterARefusedUpgrade(t *testing.T) {
	b := append([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), frame(0x81, 5)...)
	if got := boundaries(b, false, 3); len(got) > 0 {
		t.Errorf("boundaries %v in a response that is no upgrade", got)
	}
}

// parsed is a whole-buffer parse, written differently, to hold frames against.
func parsed(b []byte, skipHead bool) (at []int) {
	end := 0
	if !skipHead {
		head := bytes.Index(b, []byte("\r\n\r\n"))
		if !bytes.HasPrefix(b, []byte("HTTP/1.1 101")) || head < 0 {
			return nil
		}
		end = head + 4
		at = append(at, end)
	}
	for {
		rest := b[end:]
		if len(rest) < 2 {
			return at
		}
		header, size := 2, uint64(rest[1]&0x7f)
		switch size {
		case 126:
			header = 4
		case 127:
			header = 10
		}
		if len(rest) < header {
			return at
		}
		switch header {
		case 4:
			size = uint64(binary.BigEndian.Uint16(rest[2:]))
		case 10:
			size = binary.BigEndian.Uint64(rest[2:])
		}
		if rest[1]&0x80 != 0 {
			header += 4
		}
		if len(rest) < header || uint64(len(rest)-header) < size {
			return at
		}
		end += header + int(size)
		at = append(at, end)
	}
}

// Any split of any bytes has the boundaries of a whole-buffer parse.
func FuzzFrames(f *testing.F) {
	stream := slices.Concat([]byte(upgraded), frame(0x81, 3), frame(0x82, 300), frame(0x88, 2))
	f.Add(stream, false, uint8(1), uint8(5))
	f.Add(stream[len(upgraded):], true, uint8(3), uint8(200))
	f.Add([]byte("HTTP/1.1 101 x\r\n\r\r\n\r\n\x81\x00"), false, uint8(2), uint8(2))
	f.Add([]byte("\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff1234"), true, uint8(1), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, skipHead bool, first, second uint8) {
		want := parsed(b, skipHead)
		for _, sizes := range [][]int{{len(b)}, {1}, {int(first), int(second)}} {
			if got := boundaries(b, skipHead, sizes...); !slices.Equal(got, want) {
				t.Fatalf("in pieces of %v: boundaries %v, want %v", sizes, got, want)
			}
		}
	})
}
