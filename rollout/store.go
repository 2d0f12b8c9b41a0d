package rollout

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Stored is one service's state as a store holds it. A state is stored before
// anyone can see its effect. The zero Stored means that nothing is stored yet.
type Stored struct {
	Data []byte
	// Version names exactly this content. It is handed back to replace it, so
	// that nobody can write without having read; only the store reads it.
	Version string
}

// ErrConflict: what is stored is no longer what was read. Nothing was written;
// read again before deciding anything.
var ErrConflict = errors.New("the stored state was changed by someone else")

// DecodeState reads a stored state strictly: JSON that ends where it should, no
// unknown keys, and a state that Check accepts.
func DecodeState(data []byte) (State, error) {
	// The format comes first: a newer state may well have unknown keys, and then
	// the way out is the newer program. Unmarshal refuses trailing garbage.
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return State{}, fmt.Errorf("no state in JSON: %w", err)
	}
	if head.Format > Format {
		return State{}, State{Format: head.Format}.Check()
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var s State
	if err := dec.Decode(&s); err != nil {
		return State{}, fmt.Errorf("no state in JSON: %w", err)
	}
	if err := s.Check(); err != nil {
		return State{}, err
	}
	return s.Clone(), nil
}

// EncodeState is what DecodeState reads.
func EncodeState(s State) ([]byte, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode the state of %s: %w", s.Service, err)
	}
	return append(data, '\n'), nil
}
