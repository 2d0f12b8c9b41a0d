package rollout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

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

// StorePatience bounds one request to the store, and how long an operator's command
// waits for it.
const StorePatience = 3 * time.Second

// errNoAnswer: the store may have stored the state or not.
var errNoAnswer = fmt.Errorf("the store gave no answer within %s", StorePatience)

// ErrConflict: what is stored is no longer what was read. Nothing was written;
// read again before deciding anything.
var ErrConflict = errors.New("the stored state was changed by someone else")

// EncodeState writes what DecodeState reads.
func EncodeState(s State) ([]byte, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("state of %s: %w", s.Service, err)
	}
	return append(data, '\n'), nil
}

// DecodeState reads a stored state strictly: one JSON value, no unknown keys, and
// a state that Check accepts. Its error says what to do; what it refuses must
// never be overwritten.
func DecodeState(data []byte) (State, error) {
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

// DecodeStateOf is DecodeState for a store that keeps service's state there.
func DecodeStateOf(service discovery.Service, data []byte) (State, error) {
	s, err := DecodeState(data)
	if err == nil && s.Service != service {
		return State{}, fmt.Errorf("it is the state of service %s; %s", s.Service, wayOut)
	}
	return s, err
}

// Unstored says that a state could not be stored, and why.
func Unstored(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		err = errNoAnswer
	}
	return fmt.Errorf("the next state cannot be stored: %w", err)
}

// RefuseUnstored is the answer to a command whose state could not be stored.
func RefuseUnstored(service discovery.Service, err error) *Refusal {
	if errors.Is(err, errNoAnswer) {
		return refuse(NotStored, "%s: it is not known whether it will be done: %v; mend the store, and look at the status before trying again", service, err)
	}
	return refuse(NotStored, "%s: nothing was changed: %v; mend the store and try again", service, err)
}

const wayOut = "restore it from a backup, or move it away to start its service anew on the configured live colour"
