package rollout

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/returns"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// Stored is one service's state as a store holds it. A state is stored before
// anyone can see its effect. The zero Stored means that nothing is stored yet.
type Stored struct {
	Data []byte
	// Version names exactly this content. It is handed back to replace it, so
	// that nobody can write without having read; only the store reads it.
	Version string
}

// StorePatience bounds one request to the store: one that hangs must not hold up
// the other services and the operator's commands for longer.
const StorePatience = 3 * time.Second

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
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.DisallowUnknownFields()
		err = dec.Decode(&s)
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
		return fmt.Errorf("the next state cannot be stored: the store gave no answer within %s", StorePatience)
	}
	return fmt.Errorf("the next state cannot be stored: %w", err)
}

// RefuseUnstored is the answer to a command whose state could not be stored.
func RefuseUnstored(service discovery.Service, err error) *Refusal {
	return refuse(NotStored, "%s: nothing was changed: %v; mend the store and try again", service, err)
}

const wayOut = "restore it from a backup, or move it away to start its service anew on the configured live colour"

// Check reports a state that no transition can have made: it states the invariants
// that the fields' comments state.
func (s State) Check() error {
	switch {
	case s.Format > Format:
		return fmt.Errorf("state format %d is newer than this program's %d; run the newer rolloutd", s.Format, Format)
	case s.Format < 1:
		return fmt.Errorf("state format %d is not known; restore the state from a backup", s.Format)
	case s.Service == "":
		return fmt.Errorf("state names no service")
	case s.Live != discovery.Blue && s.Live != discovery.Green:
		return fmt.Errorf("state of %s: live colour is %q", s.Service, s.Live)
	case !slices.IsSorted(s.Proxies):
		return fmt.Errorf("state of %s: its proxies are not sorted", s.Service)
	}
	for id, m := range s.Members {
		if err := m.check(id); err != nil {
			return fmt.Errorf("state of %s: member %s %w", s.Service, id, err)
		}
	}
	if s.Rollout == nil {
		return nil
	}
	return s.checkRollout()
}

func (m Member) check(key discovery.InstanceID) error {
	switch {
	case m.Colour != discovery.Blue && m.Colour != discovery.Green:
		return fmt.Errorf("has colour %q", m.Colour)
	case key != m.ID && m.Departed.IsZero():
		return errors.New("is there under a former name")
	case m.Ceiling != nil && *m.Ceiling < 0:
		return fmt.Errorf("has ceiling %d", *m.Ceiling)
	case m.Share < 0 || m.Start < 0:
		return fmt.Errorf("has share %d from %s on", m.Share, m.Start)
	case !m.Counted && (m.Counts.Evicted > 0 || m.Counts.Returned > 0), m.Lost < 0:
		return fmt.Errorf("has counts %+v", m.Counts)
	case m.Hooked < 0, m.Hooked == 0 && !m.HookedAt.IsZero():
		return fmt.Errorf("has %d calls of its hook, the last at %s", m.Hooked, m.HookedAt)
	}
	return nil
}

func (s State) checkRollout() error {
	r := s.Rollout
	switch r.Phase {
	case Opening, Shifting, Confirming, Draining, Soaking:
	default:
		return fmt.Errorf("state of %s: phase is %q", s.Service, r.Phase)
	}
	if s.Epoch == 0 || r.ID == "" || r.From != r.To.Other() || (r.From != discovery.Blue && r.From != discovery.Green) {
		return fmt.Errorf("state of %s: rollout %q from %q to %q in epoch %d", s.Service, r.ID, r.From, r.To, s.Epoch)
	}
	if r.Aborting != (r.To == s.Live) {
		return fmt.Errorf("state of %s: rollout %s goes to %q while %q is live", s.Service, r.ID, r.To, s.Live)
	}
	if err := r.Policy.Funnel.Check(); err != nil {
		return fmt.Errorf("state of %s: rollout %s: %w", s.Service, r.ID, err)
	}
	if r.Returns != nil && !r.Returns.Whole() {
		return fmt.Errorf("state of %s: what rollout %s knows of returning clients is not whole", s.Service, r.ID)
	}
	for id, m := range s.Members {
		if m.Turn < 0 || m.Turn > r.Batch {
			return fmt.Errorf("state of %s: member %s has its turn in batch %d of %d", s.Service, id, m.Turn, r.Batch)
		}
	}
	if err := r.check(); err != nil {
		return fmt.Errorf("state of %s: rollout %s has %w", s.Service, r.ID, err)
	}
	return nil
}

func (r *Rollout) check() error {
	switch {
	case r.Weight < 0 || r.Weight > units.Whole:
		return fmt.Errorf("weight %s", r.Weight)
	case r.Given.Close < 0 || r.Given.Close > r.Cap || r.Pace.Limit < 0:
		return fmt.Errorf("a step of %d closes under a cap of %d and a pace of %d", r.Given.Close, r.Cap, r.Pace.Limit)
	case r.Total < 0 || r.Lost < 0 || r.Owed < 0 || r.NeverBack < 0:
		return fmt.Errorf("a toll below zero")
	case !slices.IsSortedFunc(r.Marks, func(a, b returns.Mark) int { return cmp.Compare(a.Gone, b.Gone) }):
		return fmt.Errorf("marks that fall")
	case len(r.Events) > eventsKept || r.Omitted < 0:
		return fmt.Errorf("%d events", len(r.Events))
	}
	return nil
}
