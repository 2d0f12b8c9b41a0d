package wsframe

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
)

// MarshalText is the Tracker as it stands, so that it can go on in another process.
func (t Tracker) MarshalText() ([]byte, error) {
	b := []byte{byte(t.From), t.have, 0}
	for i, is := range []bool{t.open, t.closed, t.lost} {
		if is {
			b[2] |= 1 << i
		}
	}
	b = append(b, t.header[:]...)
	b = binary.BigEndian.AppendUint64(b, t.left)
	return hex.AppendEncode(nil, b), nil
}

// UnmarshalText takes over what MarshalText gave.
func (t *Tracker) UnmarshalText(text []byte) error {
	b, err := hex.AppendDecode(nil, text)
	if err != nil {
		return err
	}
	if len(b) != 3+len(t.header)+8 || int(b[1]) >= len(t.header) {
		return errors.New("this is no Tracker")
	}
	t.From, t.have = Sender(b[0]), b[1]
	t.open, t.closed, t.lost = b[2]&1 != 0, b[2]&2 != 0, b[2]&4 != 0
	b = b[3:]
	copy(t.header[:], b)
	t.left = binary.BigEndian.Uint64(b[len(t.header):])
	return nil
}
