package wsframe

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
)

// What is appended is read again, and has the length that a Tracker sees.
func TestWhatIsAppendedIsRead(t *testing.T) {
	for _, size := range []int{0, 1, 125, 126, 1<<16 - 1, 1 << 16} {
		for _, key := range []*[4]byte{nil, {}, {1, 2, 3, 4}} {
			payload := bytes.Repeat([]byte("xyz"), size)[:size]
			b := Append([]byte("before"), Final|Text, key, payload)[len("before"):]
			tr := Tracker{From: Server}
			if key != nil {
				tr.From = Client
			}
			if n := tr.Next(append(slices.Clone(b), 0)); n != len(b) || !tr.Between() {
				t.Errorf("a frame of %d bytes with the key %v ends behind %d bytes, want %d", size, key, n, len(b))
			}
			r := bytes.NewReader(b)
			f, err := Read(r, size)
			if err != nil || f.Opcode != Text || f.Masked != (key != nil) || !bytes.Equal(f.Payload, payload) || r.Len() > 0 {
				t.Errorf("a frame of %d bytes with the key %v is read as %+v, %v; %d bytes are left", size, key, f, err, r.Len())
			}
		}
	}
}

func TestAPayloadMayBeLeftOut(t *testing.T) {
	r := bytes.NewReader(slices.Concat(frame(Final|Text, true, 126), frame(Final|Ping, false, 2)))
	if f, err := Read(r, 125); err != nil || f.Opcode != Text || f.Payload != nil {
		t.Errorf("the long one is read as %+v, %v", f, err)
	}
	if f, err := Read(r, 125); err != nil || f.Opcode != Ping || len(f.Payload) != 2 {
		t.Errorf("the one behind it is read as %+v, %v", f, err)
	}
	if f, err := Read(r, 125); !errors.Is(err, io.EOF) {
		t.Errorf("the end is read as %+v, %v", f, err)
	}
	if _, err := Read(bytes.NewReader([]byte("\x82\x7f\x00\x00\x01\x00\x00\x00\x00\x01")), 125); err == nil || err.Error() != "a frame of 1099511627777 bytes" {
		t.Errorf("a huge one is answered %v", err)
	}
}

func TestServiceRestartIsALegalCloseFrame(t *testing.T) {
	tr := Tracker{From: Server}
	tr.Follow([]byte(ServiceRestart))
	if !tr.Closed() || !tr.Between() || tr.Lost() {
		t.Errorf("after it: %+v", tr)
	}
}
