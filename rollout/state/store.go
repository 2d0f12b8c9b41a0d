package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/drain/strictjson"
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

// Encode writes what Decode reads.
func Encode(s State) ([]byte, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("state of %s: %w", s.Service, err)
	}
	return append(data, '\n'), nil
}

// Decode reads a stored state strictly: one JSON value, no unknown keys, and
// a state that Check accepts. Its error says what to do; what it refuses must
// never be overwritten.
func Decode(data []byte) (State, error) {
	// The format comes first: a newer state may well have unknown keys, and then
	// the way out is the newer program.
	var head struct {
		Format int `json:"format"`
	}
	err := json.Unmarshal(data, &head) // refuses trailing garbage, too
	if err == nil && head.Format > Format {
		return State{}, State{Format: head.Format}.Check()
	}
	var s State
	if err == nil {
		err = strictjson.Decode(bytes.NewReader(data), &s)
	}
	if err == nil {
		err = s.Check()
	}
	if err != nil {
		return State{}, fmt.Errorf("%w; %s", err, wayOut)
	}
	return s.Clone(), nil
}

// DecodeOf is Decode for a store that keeps service's state there.
func DecodeOf(service discovery.Service, data []byte) (State, error) {
	s, err := Decode(data)
	if err == nil && s.Service != service {
		return State{}, fmt.Errorf("it is the state of service %s; %s", s.Service, wayOut)
	}
	return s, err
}

const wayOut = "restore it from a backup, or move it away to start its service anew on the configured live colour"
